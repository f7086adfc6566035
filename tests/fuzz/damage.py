"""Bytes as a disk or a stranger may give them: any, and good ones that are changed, cut or lengthened."""

from __future__ import annotations

from hypothesis import strategies as st


def check_tells(error: Exception, what: str) -> None:
    """An error says what it is about."""
    assert what in str(error)


def damaged(*wholes: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and the given ones with some place overwritten, removed or doubled."""
    changed = [
        st.builds(
            lambda place, new, gone, whole=whole: whole[:place] + new + whole[place + gone :],
            st.integers(0, len(whole)),
            st.binary(max_size=6),
            st.sampled_from([0, 1, 2, 6, 100, len(whole)]),
        )
        for whole in wholes
    ]
    return st.one_of(st.binary(max_size=200), *changed)
