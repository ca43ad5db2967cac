"""Types of the values of command-line options."""

import argparse
import math
import re
from typing import Callable, Optional


def number(
    kind: type, low: float, high: float = math.inf, low_included: bool = True
) -> Callable[[str], float]:
    """Return an argument type that accepts the numbers between two limits.

    Args:
        kind (type): ``int`` or ``float``.
        low (float): Lower limit.
        high (float): Upper limit, itself excluded.
        low_included (bool): Whether ``low`` itself is accepted.
    """
    limit = "at least" if low_included else "above"
    expected = f"{limit} {low}" + ("" if high == math.inf else f" and below {high}")

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low < value < high or (low_included and value == low)):
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name} {expected}")
        return value

    return convert


def increasing(text: str) -> str:
    """Accept increasing whole numbers, at least 1, separated by commas."""
    numbers = text.split(",")
    if not all(re.fullmatch("[1-9][0-9]{0,8}", n) for n in numbers) or any(
        int(a) >= int(b) for a, b in zip(numbers, numbers[1:])
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of increasing whole numbers, such as 60,120,160"
        )
    return text


def layers(text: str) -> Optional[str]:
    """Convert ``all`` to ``None``; accept ``front:K`` and ``back:K``, K at least 1."""
    if text == "all":
        return None
    if not re.fullmatch("(front|back):[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not all, front:K or back:K with K at least 1"
        )
    return text
