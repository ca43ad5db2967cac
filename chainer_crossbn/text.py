"""Text on one line."""


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
