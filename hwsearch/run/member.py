"""One member of a front or of the candidates: its entries on the card, its row in the table."""

import json
from collections.abc import Mapping
from typing import Any

from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.candidates import PREDICTED, Prediction
from hwsearch.space import Architecture
from hwsearch.trials import Measurement

Number = Measurement | Prediction


def stated(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as an entry of a card."""
    return {
        "quantity": measurement.quantity,
        "purpose": measurement.purpose,
        "value": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "count": measurement.count,
        "context": measurement.context,
        "details": json.loads(json.dumps(measurement.details)),
    }


def row_of(
    arch: Architecture,
    numbers: Mapping[str, Number | None],
    probability: float | None,
    exact: Mapping[str, int],
    weights: str,
    subnet: str,
) -> dict[str, Any]:
    """Return the table row of a member; ``numbers`` has None where a quantity is no objective."""
    row: dict[str, Any] = {"key": arch.key}
    for name, number in numbers.items():
        if number is None:
            continue
        row |= {name: number.value, f"{name}_low": number.low, f"{name}_high": number.high}
        if isinstance(number, Prediction):
            row[f"{name}_source"] = PREDICTED
        elif name == LATENCY:
            row |= {each: number.details[each] for each in ("p90_ms", "p99_ms", "rounds")}
    row |= {} if probability is None else {"probability": probability}
    # Every choice, in the order of the space; one that is inactive here has no value.
    choices = {name: arch.mapping.get(name) for name in arch.space.names}
    return row | dict(exact) | {"weights": weights, "subnet": subnet} | choices
