"""Resource quantities, compared as numbers."""

from __future__ import annotations

from decimal import Decimal

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10) ** 3,
    **{unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def quantity(text: str) -> Decimal:
    """The number that a quantity such as `500m` or `16Gi` stands for; a `ValueError` names what is none."""
    number = text.rstrip("mkKMGTPEi")
    factor = _FACTORS.get(text[len(number) :])
    if factor is None or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"not a quantity: {text!r}")
    return Decimal(number) * factor
