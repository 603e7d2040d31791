"""Which models hold the same tensors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wszoo.catalog.sharing import MOST_COMPARED, Sharing, tensors_of
from wszoo.digest import Digest


def digest(number):
    return Digest.of(b"tensor %d" % number)


def model(*numbers):
    return tensors_of({digest(number): 10 + number for number in numbers})


@given(st.lists(st.sets(st.integers(0, 12)), max_size=8))
def test_it_agrees_with_comparing_every_pair(held):
    sharing = Sharing([model(*sorted(numbers)) for numbers in held])
    for place, mine in enumerate(held):
        others = {at: mine & theirs for at, theirs in enumerate(held) if at != place and mine & theirs}
        found = sharing.of(place)
        assert dict(found.others) == {at: sum(10 + n for n in common) for at, common in others.items()}
        assert found.nbytes == sum(10 + n for n in set().union(*others.values()))


def test_models_with_most_in_common_come_first():
    found = Sharing([model(1, 2, 3), model(3), model(1, 2), model(9)]).of(0)
    assert [place for place, _ in found.others] == [2, 1]


def test_a_tensor_of_very_many_models_does_not_cost_all_their_pairs():
    many = MOST_COMPARED * 20
    sharing = Sharing([model(1)] * many)
    assert len(sharing.of(many - 1).others) == MOST_COMPARED
    assert sharing.of(many - 1).nbytes == 11


def test_no_models_share_nothing():
    assert Sharing([])._groups == []
    assert Sharing([model()]).of(0).others == ()
