"""Devices that join persons, and leave them again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.feature_store.identities import DEVICES, SHARED_BEYOND, Identities


def test_a_device_is_of_the_person_who_logged_in_on_it() -> None:
    identities = Identities()
    assert identities.note_log_in("v:phone", "u:ann")
    assert identities.note_log_in("v:laptop", "u:ann")
    assert identities.person_of("v:phone") == "u:ann"
    assert identities.members_of("v:laptop") == identities.members_of("u:ann") == ("u:ann", "v:phone", "v:laptop")


def test_a_device_that_nobody_logged_in_on_is_alone() -> None:
    assert Identities().members_of("v:kiosk") == ("v:kiosk",)


def test_a_second_log_in_changes_nothing() -> None:
    identities = Identities()
    identities.note_log_in("v:phone", "u:ann")
    assert not identities.note_log_in("v:phone", "u:ann")


def test_a_device_goes_to_who_logged_in_last() -> None:
    identities = Identities()
    identities.note_log_in("v:phone", "u:ann")
    identities.note_log_in("v:phone", "u:bob")
    assert identities.members_of("u:ann") == ("u:ann",)
    assert identities.members_of("u:bob") == ("u:bob", "v:phone")


def test_a_device_of_many_people_is_nobodys() -> None:
    identities = Identities()
    for number in range(SHARED_BEYOND + 1):
        identities.note_log_in("v:kiosk", f"u:{number}")
    assert identities.members_of("v:kiosk") == ("v:kiosk",)
    assert not identities.note_log_in("v:kiosk", "u:0")


def test_what_was_taken_apart_stays_apart_until_it_is_joined_by_hand() -> None:
    identities = Identities()
    identities.note_log_in("v:phone", "u:ann")
    identities.split("v:phone", "u:ann")
    assert not identities.note_log_in("v:phone", "u:ann")
    assert identities.members_of("v:phone") == ("v:phone",)
    identities.join("v:phone", "u:ann")
    assert identities.members_of("u:ann") == ("u:ann", "v:phone")


def test_the_device_joined_first_leaves_when_there_are_too_many() -> None:
    identities = Identities()
    for number in range(DEVICES + 1):
        identities.note_log_in(f"v:{number}", "u:ann")
    assert identities.members_of("u:ann") == ("u:ann", *(f"v:{number}" for number in range(1, DEVICES + 1)))
    assert identities.person_of("v:0") == "v:0"


def test_erased_keys_leave_nothing_behind() -> None:
    identities = Identities()
    for device, person in (("v:phone", "u:ann"), ("v:laptop", "u:ann"), ("v:phone", "u:bob")):
        identities.note_log_in(device, person)
    identities.split("v:tv", "u:ann")
    identities.erase({"u:ann", "v:laptop"})
    data = identities.columns()["identities"].tobytes()
    assert b"ann" not in data
    assert b"laptop" not in data
    assert identities.members_of("u:bob") == ("u:bob", "v:phone")


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["note_log_in", "join", "split"]),
        st.sampled_from([f"v:{number}" for number in range(4)]),
        st.sampled_from([f"u:{number}" for number in range(5)]),
    ),
    max_size=40,
)


@given(ACTS)
def test_both_directions_agree_and_a_snapshot_is_the_same(acts: list[tuple[str, str, str]]) -> None:
    identities, again = Identities(), Identities()
    for act, device, person in acts:
        getattr(identities, act)(device, person)
    again.restore(identities.columns())
    for found in (identities, again):
        for device in (f"v:{number}" for number in range(4)):
            assert device in found.members_of(found.person_of(device))
        assert sum(len(found.members_of(f"u:{number}")) - 1 for number in range(5)) == len(found)
    assert again.columns()["identities"].tobytes() == identities.columns()["identities"].tobytes()
