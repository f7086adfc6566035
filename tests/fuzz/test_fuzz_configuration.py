"""Whatever stands in the environment, in a receipt or in a line of dead letters: taken, or refused in words."""

from __future__ import annotations

import json
import string

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_settings import BaseSettings

from headrace.cli.mending import changed, mended_of
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.index.settings import IndexSettings
from headrace.ingest.receipts import Signer, checked
from headrace.ingest.settings import IngestSettings
from headrace.ranker.settings import RankerSettings
from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.privacy import Privacy
from headrace.runtime.settings import CommonSettings, SettingsError, load
from headrace.trainer.settings import TrainerSettings
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from tests.fuzz.damage import check_tells, damaged
from tests.fuzz.profile import fuzz

KINDS = (CommonSettings, FeatureStoreSettings, IndexSettings, IngestSettings, RankerSettings, TrainerSettings)
VALUE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "0", "-1", "1e400", "nan", "inf", "9" * 400, "true", "0/0", "1/2", "kafka://", "postgresql://"]
    ),
    st.sampled_from(["kafka://h:99999/t", "kafka://[::1", "kafka://h/t?x=%ff", "2020-13-01", "0001-01-01", "\ud800"]),
)


@st.composite
def environments(draw: st.DrawFn) -> tuple[type[BaseSettings], dict[str, str]]:
    """Settings, and an environment that names some of them."""
    kind = draw(st.sampled_from(KINDS))
    prefix = str(kind.model_config.get("env_prefix", ""))
    names = [(prefix + name).upper() for name in kind.model_fields]
    other = st.text(string.ascii_uppercase + "_", max_size=8).map(lambda name: "HEADRACE_" + name)
    return kind, draw(st.dictionaries(st.sampled_from(names) | other, VALUE, max_size=4))


@fuzz
@given(environments())
@example((CommonSettings, {"HEADRACE_EVENT_LOG_URL": "kafka://[::1"}))
@example((IngestSettings, {"HEADRACE_INGEST_MIN_EVENT_TIME": "9" * 400}))
def test_any_environment_is_settings_or_a_wrong_variable_is_named(
    drawn: tuple[type[BaseSettings], dict[str, str]],
) -> None:
    kind, environment = drawn
    try:
        assert isinstance(load(kind, environment), kind)
    except SettingsError as error:
        check_names(error, environment)


def check_names(error: SettingsError, environment: dict[str, str]) -> None:
    """It names a variable that is there, and tells no secret."""
    assert any(name in str(error) for name in environment)
    secret = environment.get("HEADRACE_PRIVACY_KEY", "")
    shown = [value for name, value in environment.items() if name != "HEADRACE_PRIVACY_KEY"]
    assert len(secret) < 8 or secret not in str(error) or any(secret in value for value in shown)


SIGNER = Signer(Privacy(b"a key for tests!"))
FACTS = {"erasure_id": "e-1", "erased": {"log": {"records": 3}}, "pending": {}, "not_erased": ["wéights"]}
RECEIPT = SIGNER.signed(FACTS)


@fuzz
@given(damaged(RECEIPT))
@example(b"[" * 100_000)
@example(json.dumps(json.loads(RECEIPT) | {"erasure_id": "\ud800"}).encode())
@example(json.dumps(json.loads(RECEIPT) | {"signature": 7}).encode())
def test_no_other_bytes_are_a_receipt(data: bytes) -> None:
    try:
        said = checked(data, SIGNER.public_key)
    except InvalidRequestError as error:
        check_tells(error, "receipt")
        return
    # spaces between words, and keys said twice, change nothing that is said
    assert {name: said[name] for name in FACTS} == FACTS


def test_a_receipt_is_one() -> None:
    said = checked(RECEIPT, SIGNER.public_key)
    assert {name: said[name] for name in FACTS} == FACTS


LETTER = json.dumps({"id": 3, "event": {"event_type": "search", "product_details": [{"product_id": "p"}]}})


@fuzz
@given(st.lists(damaged(LETTER.encode()), max_size=3))
@example([b"[" * 100_000])
@example([b'{"id": 3, "event": {"labels": ' + b'{"a":' * 5_000])
@example([b'{"id": 1e30, "event": {}}'])
@example([b'{"id": 3, "event": 7}'])
@example([b'{"id": 3, "event": {"product_details": ["\\ud800"]}}'])
@example([b'{"id": 3, "event": {"\\ud800": 1}}'])
@example([b'{"id": 3, "event": {"event_time": "9999999-01-01T00:00:00Z"}}'])
def test_any_lines_of_dead_letters(lines: list[bytes]) -> None:
    try:
        letters = list(mended_of([line.decode(errors="replace") for line in lines], "f.jsonl"))
    except InvalidRequestError as error:
        check_tells(error, "f.jsonl:")
        return
    assert all(isinstance(letter.event, UserEvent) for letter in letters)


PATH = st.lists(st.sampled_from(["product_details", "0", "-1", "price", "event_time", "labels", "x", ""]), max_size=4)


@fuzz
@given(PATH.map(".".join), st.sampled_from(["", "=", "=1", "=nan", "=2020-01-01T00:00:00Z", "=[]", "=\ud800"]))
@example("product_details.0", "=\ud800")
@example("product_details.0.price.product_details", "=")
def test_any_change_of_a_letter_by_name(path: str, value: str) -> None:
    event = UserEvent(event_type="search", product_details=[ProductDetail(product_id="p", price=1)])
    try:
        changed(event, [path + value])
    except InvalidRequestError as error:
        check_tells(error, "--set")
