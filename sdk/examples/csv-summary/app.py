"""Summarises a table: how many rows, and of each column of numbers the least, the middle and the most.

A guest that is a component made from Python: `componentize-py` puts the interpreter, its standard library and this file into one
module, and writes `wit_world` from `world.wit`.
"""

import csv
import io
import json
import statistics

import wit_world
from componentize_py_types import Err
from wit_world.imports import io as call
from wit_world.imports import log, metric
from wit_world.imports.types import Level

# Largest transfer of one call of the interface, bytes.
MAX_TRANSFER = 8 << 20


def read() -> str:
    data = bytearray()
    while len(data) < call.input_len():
        data += call.read_input(len(data), MAX_TRANSFER)
    return data.decode("utf-8")


def numbers(column: list[str]) -> list[float] | None:
    try:
        return [float(value) for value in column]
    except ValueError:
        return None


def summary(text: str) -> dict:
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    columns = {}
    for name in rows[0] if rows else []:
        measured = numbers([row[name] or "" for row in rows])
        if measured is not None:
            columns[name] = {
                "least": min(measured),
                "median": statistics.median(measured),
                "most": max(measured),
            }
    return {"rows": len(rows), "columns": columns}


class WitWorld(wit_world.WitWorld):
    def process(self) -> None:
        try:
            told = summary(read())
        except (UnicodeDecodeError, csv.Error) as error:
            raise Err(f"it is no table: {error}") from error
        metric.record_metric("rows", float(told["rows"]))
        log.log(Level.INFO, "summarised")
        call.write_output(json.dumps(told).encode("utf-8"))
