from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.sources.nvml.visible import Board, Device, Visible, pci_order, visible

UUIDS = (
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6",
    "GPU-1c20e77d-1c1a-d9ed-fe37-18b8466a78ad",
    "GPU-e429a63e-c61c-4795-b757-5132caeb8e70",
)
BOARDS = [Board(index, uuid, "NVIDIA A100", (0, index + 1, 0)) for index, uuid in enumerate(UUIDS)]
SLICES = {"MIG-aaaa": UUIDS[0], "MIG-bbbb": UUIDS[0], "MIG-cccc": UUIDS[2], "1": UUIDS[1]}
"""The parents of slices; the last is no slice, and is not to be looked up."""


def shown(text: str | None) -> list[int]:
    return [device.board.index for device in visible(text, BOARDS, SLICES.get).devices]


@pytest.mark.parametrize(
    ("text", "boards"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("  ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [0]),
        ("2,1", [2, 1]),
        ("0,2,-1,1", [0, 2]),
        ("0,2,7,1", [0, 2]),
        ("0,2,,1", [0, 2]),
        ("1,0x,3", [1, 0, 3]),
        ("1gpu2,2ampere", [1, 2]),
        ("2, +3, -0, 1", [2, 3, 0, 1]),
        ("002", [2]),
        ("one,two,3", []),
        ("99999999999999999999999", []),
        ("3,two,1", [3]),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", [0]),
        ("GPU-8932f937", [0]),
        ("GPU-1,GPU-e429", [2, 3]),
        ("GPU-1, GPU-e429", [2, 3]),
        ("GPU-e429,GPU-8932,GPU-1", [3]),
        ("GPU-e429,GPU-ffff,GPU-1", [3]),
        ("GPU-e429,0", [3]),
        ("0,GPU-e429", [0]),
        ("gpu-e429", []),
        ("MIG-aaaa", [0]),
        ("MIG-aaaa,MIG-cccc", [0, 2]),
        ("MIG-aaaa,MIG-bbbb", [0, 0]),
        ("MIG-aaaa,MIG-ffff,MIG-cccc", [0]),
        ("MIG-aaaa,1", [0]),
        (f"MIG-{UUIDS[3]}/1/0", [3]),
        (f"MIG-{UUIDS[3]}/1/0,MIG-{UUIDS[3]}/2/0", [3, 3]),
        (f"MIG-{UUIDS[3]}/1", []),
        ("MIG-GPU-ffff/1/0", []),
    ],
)
def test_the_variable_shows_what_cuda_would_show(text: str | None, boards: list[int]) -> None:
    assert shown(text) == boards


@pytest.mark.parametrize("text", ["0,0", "0,1,0", "0,1,+0", "GPU-1,GPU-1c20", "MIG-aaaa,MIG-aaaa"])
def test_a_device_named_twice_leaves_none(text: str) -> None:
    assert visible(text, BOARDS, SLICES.get).devices == ()
    assert not visible(text, BOARDS, SLICES.get).intended


@pytest.mark.parametrize("text", ["", " ", "-1", "NoDevFiles"])
def test_hiding_all_boards_is_told_from_a_mistake(text: str) -> None:
    assert visible(text, BOARDS, SLICES.get) == Visible((), by_index=True, intended=True)


@pytest.mark.parametrize("text", ["7", "GPU-ffff", "GPU-8932", "MIG-ffff", "cuda"])
def test_a_mistake_that_hides_all_boards_is_told_from_a_wish(text: str) -> None:
    assert not visible(text, BOARDS, SLICES.get).intended


def test_only_integers_depend_on_the_order_of_the_boards() -> None:
    assert visible("1", BOARDS, SLICES.get).by_index
    assert not visible("GPU-1", BOARDS, SLICES.get).by_index
    assert not visible("MIG-aaaa", BOARDS, SLICES.get).by_index
    assert not visible(None, BOARDS, SLICES.get).by_index


def test_a_slice_is_known_by_its_name() -> None:
    assert visible("MIG-cccc", BOARDS, SLICES.get).devices == (Device(BOARDS[2], mig="MIG-cccc"),)


def test_boards_are_ordered_by_pci_bus_id_and_else_by_number() -> None:
    far, near = Board(0, "GPU-a", pci=(0, 0x88, 0)), Board(1, "GPU-b", pci=(0, 0x1A, 0))
    other_domain, unknown = Board(2, "GPU-c", pci=(1, 0x01, 0)), Board(3, "GPU-d")
    assert pci_order([other_domain, far, near]) == [near, far, other_domain]
    assert pci_order([unknown, near, far]) == [far, near, unknown]


def slow_and_obvious(words: list[str]) -> list[int]:
    """The guide read aloud: go through the list, stop at the first invalid entry; a repeated board leaves nothing."""
    found: list[int] = []
    for word in words:
        if word.startswith("GPU-") != words[0].startswith("GPU-"):
            break
        if word.startswith("GPU-"):
            matches = [number for number, uuid in enumerate(UUIDS) if uuid[: len(word)] == word]
            if len(matches) != 1:
                break
            found.append(matches[0])
        elif word in ("0", "1", "2", "3"):
            found.append(int(word))
        else:
            break
    return [] if len(found) != len(set(found)) else found


WORDS = st.one_of(
    st.integers(-2, 6).map(str),
    st.tuples(st.sampled_from(UUIDS), st.integers(4, 40)).map(lambda pair: pair[0][: pair[1]]),
    st.sampled_from(["", "x", "GPU-f", "all", "none"]),
)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_any_list_of_integers_and_uuids_agrees_with_the_obvious_reading(words: list[str]) -> None:
    assert shown(",".join(words)) == slow_and_obvious(words)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_blanks_around_entries_change_nothing(words: list[str]) -> None:
    assert shown(" , ".join(words)) == shown(",".join(words))


@given(st.lists(WORDS, min_size=1, max_size=4), st.sampled_from(["-1", "nonsense", "", "17"]), st.lists(WORDS, max_size=4))
def test_nothing_after_an_invalid_entry_matters(before: list[str], invalid: str, after: list[str]) -> None:
    assert shown(",".join([*before, invalid, *after])) == shown(",".join([*before, invalid]))


@given(st.text())
def test_no_text_shows_a_board_twice_or_raises(text: str) -> None:
    boards = shown(text)
    assert len(boards) == len(set(boards))


@given(st.permutations(range(4)), st.integers(1, 4))
def test_full_uuids_show_exactly_those_boards_in_that_order(order: list[int], count: int) -> None:
    assert shown(",".join(UUIDS[number] for number in order[:count])) == list(order[:count])
