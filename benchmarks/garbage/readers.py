"""All readers by name."""
from benchmarks.garbage import programs, reader, tables, texts, weights

ALL: dict[str, reader.Reader] = {
    of.name: of for of in (*tables.ALL, *weights.ALL, *texts.ALL, *programs.ALL)}
