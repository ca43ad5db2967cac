"""Tables in plain text and in Markdown."""

from collections.abc import Collection, Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Return rows as lines of plain text with aligned columns.

    Args:
        rows (list of tuple of str): Cells; all rows have the same number.
        left (tuple of int): Columns that are aligned left; the others are aligned
            right.

    Returns:
        str: The table, without a newline at its end.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Return a table in Markdown.

    Args:
        head (tuple): Names of the columns.
        rows (iterable of tuple): Cells.

    Returns:
        str: The table, without a newline at its end.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
