"""Census-Income (KDD): one row per person of the 1994 and 1995 US surveys, two labels.

Train is the published `.data`; the published `.test` is halved at random into valid and test.

    income, never_married, degree   labels: 1.0 or 0.0
    income_and_never_married        label, the product of the two
    CATEGORICAL, education,         int32 codes; vocabularies.json has the strings
    marital_status
    NUMERIC                         float32
    NUMERIC + "_bucket"             int32 codes of ranges, to embed a number as an id
    instance_weight                 float32, people in the population that the row stands for

`education`, `marital_status` and `instance_weight` are not for input: the first two decide the
labels `degree` (an associate degree or more) and `never_married`, and the weight comes from the
sampling.

Source: https://archive.ics.uci.edu/dataset/117/census+income+kdd
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.public.raw_data import PublicData, read_csv
from data_loaders.public.vocabulary import Buckets, Codes, Vocabulary
from data_loaders.storage import Location

# In the order of the raw file, which has no header line.
COLUMNS = (
    "age",
    "class_of_worker",
    "industry",
    "occupation",
    "education",
    "wage_per_hour",
    "enrolled_in_education",
    "marital_status",
    "major_industry",
    "major_occupation",
    "race",
    "hispanic_origin",
    "sex",
    "union_member",
    "unemployment_reason",
    "employment_status",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "tax_filer_status",
    "previous_region",
    "previous_state",
    "household_and_family",
    "household_summary",
    "instance_weight",
    "migration_msa",
    "migration_region",
    "migration_within_region",
    "same_house_1_year_ago",
    "migration_sunbelt",
    "employer_size",
    "family_members_under_18",
    "father_birth_country",
    "mother_birth_country",
    "own_birth_country",
    "citizenship",
    "own_business",
    "veteran_questionnaire",
    "veteran_benefits",
    "weeks_worked",
    "year",
    "income",
)
NUMERIC = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "employer_size",
    "weeks_worked",
)
CATEGORICAL = tuple(name for name in COLUMNS if name not in (*NUMERIC, "instance_weight", "income"))
NUM_BUCKETS = 100
# values of `education`, as the raw file writes them
DEGREES = (
    "Associates degree-academic program",
    "Associates degree-occup /vocational",
    "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)",
    "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
)
EXPECTED = "UCI Census-Income (KDD): census-income.data.gz, census-income.test.gz"


def build(source: Location, *, seed: int) -> PublicData:
    """Reads `census-income.data.gz` and `census-income.test.gz`; `seed` halves the latter.

    Raises:
        StorageError: a file is missing.
        SchemaError: a file is not the one described.
    """
    train, held_out = (_read(source, name) for name in ("census-income.data", "census-income.test"))
    codes: dict[str, Codes] = {name: Vocabulary.fit(train[name]) for name in CATEGORICAL}
    for name in NUMERIC:
        numbers = train[name].to_numpy()
        codes[f"{name}_bucket"] = Buckets.fit(numbers, num_buckets=NUM_BUCKETS)
    order = np.random.default_rng(seed).permutation(held_out.num_rows)
    middle = held_out.num_rows // 2
    return PublicData(
        description=(
            "UCI Census-Income (KDD). Tasks: income (above 50,000 dollars), never_married, degree "
            "(associate or more). train is the published .data; valid and test are random halves "
            "of the published .test."
        ),
        splits={
            "train": _encode(train, codes=codes),
            "valid": _encode(held_out.take(np.sort(order[:middle])), codes=codes),
            "test": _encode(held_out.take(np.sort(order[middle:])), codes=codes),
        },
        codes=codes,
    )


def _read(source: Location, name: str) -> pa.Table:
    """The raw columns: numbers as float64, anything else as strings without blanks around them."""
    numbers = (*NUMERIC, "instance_weight")
    types = {name: pa.float64() if name in numbers else pa.string() for name in COLUMNS}
    table = read_csv(source, f"{name}.gz", types=types, has_header=False, expected=EXPECTED)
    stripped = {
        name: table[name] if name in numbers else pc.utf8_trim_whitespace(table[name])
        for name in COLUMNS
    }
    return pa.table(stripped)


def _encode(table: pa.Table, *, codes: dict[str, Codes]) -> pa.Table:
    income = pc.starts_with(table["income"], "50000+").cast(pa.float32())
    never_married = pc.equal(table["marital_status"], "Never married").cast(pa.float32())
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "income": income,
        "never_married": never_married,
        "income_and_never_married": pc.multiply(income, never_married),
        "degree": pc.is_in(table["education"], pa.array(DEGREES)).cast(pa.float32()),
        "instance_weight": table["instance_weight"].cast(pa.float32()),
    }
    for name in CATEGORICAL:
        columns[name] = codes[name].encode(table[name])
    for name in NUMERIC:
        columns[name] = table[name].cast(pa.float32())
        columns[f"{name}_bucket"] = codes[f"{name}_bucket"].encode(table[name].to_numpy())
    return pa.table(columns)
