"""Reads ids, words and times from cells of any type that files contain. No TensorFlow.

Each function takes the file, the number of the line and the column's name, to name them in the
UserError for a value that it cannot read.
"""
import datetime
import decimal
import uuid

from ilm_jax import errors
from ilm_jax.tasks.datasets import lines

PER_SECOND = {"s": 1, "ms": 10 ** 3, "us": 10 ** 6, "ns": 10 ** 9}   # by data.columns.time_unit
_BITS = 14_000                   # Python spells no larger whole numbers
_WHOLE = 2.0 ** 53               # larger floats may have lost digits of a whole number
_FARTHEST = 10 ** 40             # bound of a time before its unit is checked
_LAST_YEAR = 9999
_LATEST = 32_503_680_000         # seconds: the year 3000
_DATES = {8: ("%Y%m%d", "%Y-%m-%d"), 12: ("%Y%m%d%H%M", "%Y-%m-%dT%H:%M"),
          14: ("%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%S")}       # digits: how they are read, and written


class Nanoseconds(int):
  """A time since 1970 that needs no unit."""


def word(path, number: int, name: str, value) -> str:
  """Text of a cell; "" if it is empty. Whole floats lose their .0 (tables with gaps have them).

  Raises:
    UserError: a list, a truth value or bytes that are no UTF-8.
  """
  if value is None or value != value:
    return ""
  if isinstance(value, bytes):
    try:
      return value.decode().strip()
    except UnicodeDecodeError as e:
      raise _wrong(path, number, name, value, "expected text in UTF-8") from e
  if isinstance(value, float | decimal.Decimal) and _without_fraction(value):
    return str(int(value))
  if isinstance(value, bool) or not isinstance(
      value, str | int | float | decimal.Decimal | uuid.UUID | datetime.date):
    raise _wrong(path, number, name, value, f"a {type(value).__name__}; expected text or a number")
  if isinstance(value, int) and value.bit_length() > _BITS:
    raise _wrong(path, number, name, value, "expected text or a number")
  return str(value).strip()


def _without_fraction(value: float | decimal.Decimal) -> bool:
  """Whether a number is finite and whole; a long Decimal has no `// 1`."""
  if isinstance(value, decimal.Decimal):
    return value.is_finite() and value == value.to_integral_value()
  return value == value // 1


def identity(path, number: int, name: str, value) -> str:
  """The id in a cell. 7, "7" and 7.0 are one id, and so are -7, "-7" and -7.0.

  Raises:
    UserError: the cell is empty, is neither text nor a number, or is a float that lost digits.
  """
  if isinstance(value, float) and abs(value) > _WHOLE:
    raise _wrong(path, number, name, value,
                 "a float that has lost digits: keep such ids as text or as integers")
  if not (text := word(path, number, name, value)):
    raise errors.UserError(f"{path}, line {number}: {name} is empty")
  whole = text.removesuffix(".0")
  if not whole.removeprefix("-").isdecimal():
    return text
  return "0" if whole == "-0" else whole


def words(path, number: int, name: str, value, separator: str) -> list[str]:
  """A list as it is; text cut at the separator."""
  parts = (value if isinstance(value, list | tuple)
           else word(path, number, name, value).split(separator or None))
  return [text for part in parts if (text := word(path, number, name, part))]


def year(path, number: int, name: str, value) -> int | None:
  """A year; None if the cell is empty."""
  text = word(path, number, name, value).removesuffix(".0")
  value = lines.number_of(path, number, name, text, int) if text else None
  if value is not None and not -_LAST_YEAR <= value <= _LAST_YEAR:
    raise _wrong(path, number, name, value, f"expected a year of at most {_LAST_YEAR}")
  return value


def nanoseconds(path, number: int, name: str, value, unit: str, first: bool = False) -> int:
  """Since 1970, from a number in `unit`, a date, or ISO 8601 (UTC if it names no zone).

  Args:
    path, number, name, value: the cell.
    unit: a key of PER_SECOND.
    first: whether it is the file's first time: a number like 20240501 is then refused as a date.

  Raises:
    UserError: no time, a date without dashes, or a time far from now in this unit.
  """
  if isinstance(value, Nanoseconds):
    return value
  if isinstance(value, str | bytes):
    value = word(path, number, name, value)
    value = _moment(path, number, name, value) if not _is_number(value) else value
  if isinstance(value, datetime.date):
    if not isinstance(value, datetime.datetime):
      value = datetime.datetime(value.year, value.month, value.day)
    value = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return since // datetime.timedelta(microseconds=1) * 1000
  time = lines.number_of(path, number, name, value, int if _is_whole(value) else float,
                         most=_FARTHEST)
  _check_near(path, number, name, time, unit, first)
  scale = PER_SECOND["ns"] // PER_SECOND[unit]
  return time * scale if isinstance(time, int) else int(time * scale // 1)


def _moment(path, number: int, name: str, value: str) -> datetime.datetime:
  try:
    return datetime.datetime.fromisoformat(value)
  except ValueError as e:
    raise _wrong(path, number, name, value,
                 "expected a number or ISO 8601, e.g. '2024-05-01T12:00:00Z'") from e


def _is_number(text: str) -> bool:
  try:
    float(text)
    return True
  except ValueError:
    return False


def _is_whole(value) -> bool:
  return isinstance(value, int) or (isinstance(value, str) and value.removeprefix("-").isdecimal())


def _check_near(path, number: int, name: str, time, unit: str, first: bool) -> None:
  """Raises a UserError for a number that must be a time in another unit, or a date without dashes.
  """
  far = abs(time) > _LATEST * PER_SECOND[unit]
  if (far or first) and (date := _as_date(time)):
    raise _wrong(path, number, name, time, f"a date and not a number of {unit}: write {date}")
  if far:
    fit = next((u for u in PER_SECOND if abs(time) <= _LATEST * PER_SECOND[u]), None)
    cure = (f"set data.columns.time_unit={fit!r}" if fit
            else f"expected a time since 1970 in one of {', '.join(PER_SECOND)}")
    raise _wrong(path, number, name, time,
                 f"in data.columns.time_unit={unit!r} more than a thousand years from now: {cure}")


def _as_date(time) -> str:
  """ISO 8601 of 20240501 and 20240501123000; "" for other numbers and years outside 1970 to 2100.
  """
  how, written = _DATES.get(len(str(time)), ("", ""))
  try:
    date = datetime.datetime.strptime(str(time), how)
  except ValueError:
    return ""
  return date.strftime(written) if how and 1970 <= date.year <= 2100 else ""


def _wrong(path, number: int, name: str, value, what: str) -> errors.UserError:
  return errors.UserError(f"{path}, line {number}: {name} is {errors.shown(value)}, {what}")
