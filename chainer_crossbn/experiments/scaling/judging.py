"""The verdict on claim 7, and why, from what was evaluated.

The claim holds if at every random point that gives both of the paper's ratios, 0.930 of
noBN to normalBN and 1.506 of multigpuBN to normalBN, more than half of the extra time
is transfer (synchronizing the device, copies, all-reduces) and waiting for other ranks;
it does not if at every one it is less; else, and where there is none, it can't be told.
"""

HOLDS = "holds"
FAILS = "does not hold"
UNCLEAR = "can't be told"


def verdict(rows):
    """Judge the claim.

    Args:
        rows (list of dict): As :func:`.synchronization.claim7` returns them.

    Returns:
        str: :data:`HOLDS`, :data:`FAILS` or :data:`UNCLEAR`.
    """
    shares = _synchronizing(rows)
    if shares and min(shares) > 0.5:
        return HOLDS
    if shares and max(shares) < 0.5:
        return FAILS
    return UNCLEAR


def sentences(rows, relative_skew):
    """Say what decides.

    Args:
        rows (list of dict): As :func:`.synchronization.claim7` returns them.
        relative_skew (tuple of float): As it takes it.

    Returns:
        list of str: Without full stops.
    """
    reached = [row for row in rows if row["reached"]]
    gpus = sorted({row["gpus"] for row in reached})
    with_gpus = f", with {', '.join(map(str, gpus))} GPUs" if gpus else ""
    alone = {part: max(row["alone"][part] for row in rows) for part in rows[0]["alone"]}
    found = [
        f"the ratio is {_extent(rows, 'ratio', '.2f')}; the paper's 1.506 lies in the "
        f"range of {len(reached)} of {len(rows)} configurations{with_gpus}",
        f"noBN to normalBN is {_extent(rows, 'none_to_normal', '.2f')}; the paper's is "
        "0.930",
        "alone, at most, "
        + ", ".join(f"{part} gives {ratio:.2f}" for part, ratio in alone.items())
        + f"; all but waiting {max(row['unwaited'] for row in rows):.2f}",
        "in the middle of all ranges an all-reduce takes "
        f"{_extent(rows, 'all_reduce', '.0f')} us; if no rank waited, it would have to "
        f"take {_extent(rows, 'factor', '.0f')} times as long",
        "or else the relative skew would have to be "
        f"{_extent(rows, 'skew', '.2f')}; in the profiles, on CPUs, it is "
        f"{relative_skew[1]:.2f}",
    ]
    as_paper = [row for row in rows if row["as_paper"]]
    if not as_paper:
        return [*found, "no point gives both of the paper's ratios"]
    shares = _synchronizing(rows)
    skew = min(row["as_paper_skew"] for row in as_paper)
    return [
        *found,
        f"{len(as_paper)} configurations have points that give both of the paper's "
        f"ratios; there transfer and waiting are {min(shares):.0%} to "
        f"{max(shares):.0%} of the extra time, and the relative skew is {skew:.2f} or "
        "more",
    ]


def deciding(rows):
    """Give the number that decides.

    Args:
        rows (list of dict): As :func:`.synchronization.claim7` returns them.

    Returns:
        str: A few words.
    """
    shares = _synchronizing(rows)
    if not shares:
        extent = _extent(rows, "ratio", ".2f")
        return f"the ratio of times is {extent} in the model, in the paper 1.51"
    return (
        f"transfer and waiting are {min(shares):.0%} to {max(shares):.0%} of the extra "
        "time in the model"
    )


def _synchronizing(rows):
    """Return the ends of the share of synchronizing where it is as in the paper."""
    splits = [row["as_paper_split"] for row in rows if row["as_paper"]]
    ends = [split["arithmetic"] for split in splits]
    return [1 - share for least, _, most in ends for share in (least, most)]


def _extent(rows, key, form):
    """Say from where to where a number goes; of ranges, from lowest to highest."""
    values = [row[key] for row in rows]
    if isinstance(values[0], list):
        values = [end for low, _, high in values for end in (low, high)]
    return f"{min(values):{form}} to {max(values):{form}}"
