
static double to_double(Half value) {
  _Float16 narrow;
  memcpy(&narrow, &value, sizeof narrow);
  return narrow;
}

static void assign(Half& to, double value) {
  const _Float16 narrow = value;
  memcpy(&to, &narrow, sizeof narrow);
}
