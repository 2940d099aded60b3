"""Checks the OpenAPI documents of the tests, and JSON values against the schemas in them.

Every `*.json` beside this file is a document. `values.ndjson` has a line for each value: the key of
a schema of `everything.json`, the value, and whether serde reads it as that type.
"""

import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

FOLDER = Path(__file__).parent


def document_errors(path):
    document = json.loads(path.read_text())
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        yield f"{path.name}: {'/'.join(map(str, error.absolute_path))}: {error.message}"
    for key, schema in document["components"]["schemas"].items():
        try:
            Draft202012Validator.check_schema(schema)
        except Exception as error:  # the message names the place
            yield f"{path.name}: schema {key}: {error}"


def value_errors(path):
    document = json.loads((FOLDER / "everything.json").read_text())
    components = document["components"]
    tested = set()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        case = json.loads(line)
        key = case["schema"]
        schema = {"$ref": f"#/components/schemas/{key}", "components": components}
        checker = Draft202012Validator.FORMAT_CHECKER
        errors = list(Draft202012Validator(schema, format_checker=checker).iter_errors(case["value"]))
        tested.add((key, case["valid"]))
        if case["valid"] and errors:
            yield f"{path.name}:{number}: {line}: {errors[0].message}"
        if not case["valid"] and not errors:
            yield f"{path.name}:{number}: {line}: the schema accepts what serde refuses"
    for key, schema in components["schemas"].items():
        # The schema of failures belongs to no Rust type of the tests, and `Never` has no values.
        if key != "IipProblem" and "not" not in schema and (key, True) not in tested:
            yield f"{path.name}: no value for the schema {key}"
    if len(tested) < 2:
        yield f"{path.name}: there are no values"


def main():
    documents = sorted(FOLDER.glob("*.json"))
    if not documents:
        sys.exit(f"there are no documents in {FOLDER}")
    errors = [error for path in documents for error in document_errors(path)]
    errors += value_errors(FOLDER / "values.ndjson")
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        sys.exit(f"{len(errors)} errors")
    print(f"{len(documents)} documents are valid, and the schemas fit the values")


main()
