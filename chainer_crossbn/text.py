"""Text on one line, and tables in plain text and in Markdown."""

from collections.abc import Collection, Iterable, Sequence


def printable(text: object, longest: int = 40) -> str:
    """Make text from a file safe to print on one line, and not too long.

    Args:
        text: What is converted by ``str``.
        longest (int): Length above which it is cut, and ends in ``...``.

    Returns:
        str: The text; unprintable characters are ``?``, white space is one space.
    """
    text = " ".join(str(text).split())
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def aligned_table(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Return a table with aligned columns.

    Args:
        rows (sequence of sequence of str): Cells; all rows have the same length.
        left (collection of int): Columns that are aligned to the left.

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


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown.

    Args:
        head (sequence): Names of the columns.
        rows (iterable of sequence): Cells, which are converted by ``str``.

    Returns:
        str: The table, without a newline at its end.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
