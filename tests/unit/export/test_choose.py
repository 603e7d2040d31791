"""Which plans are exported, and what is said when they are not here."""

from __future__ import annotations

import msgspec
import pytest
from builders import around, publish_model, replace_in_index

from wszoo.distribution.pull import pull
from wszoo.errors import NotFoundError, UsageError
from wszoo.export import by_target, everything_here
from wszoo.names import Ref
from wszoo.remotes.directory import DirectoryRemote

NET = Ref("net", "1")


def targets(chosen):
    return sorted(plan.config.target.name for plan in chosen.plans)


@pytest.fixture
def client(store, origin):
    """A store that pulled ``net:1`` for sm89 alone."""
    pull(store, DirectoryRemote(origin.layout.root), NET, around("sm89"))
    return store


def test_a_built_model_has_all_its_plans_here(origin):
    assert targets(everything_here(origin, NET)) == ["portable", "rtx-sm86", "rtx-sm89"]


def test_only_what_was_pulled_is_here(client):
    assert targets(everything_here(client, NET)) == ["rtx-sm89"]


def test_targets_are_taken_by_name_and_once(origin):
    assert targets(by_target(origin, NET, ["rtx-sm86", "rtx-sm86", "portable"])) == ["portable", "rtx-sm86"]


@pytest.mark.parametrize(("target", "gpu"), [("rtx-sm86", "--gpu sm86"), ("portable", "--gpu none")])
def test_a_plan_that_was_not_pulled_says_how_to(target, gpu, client):
    with pytest.raises(NotFoundError, match=f"of net for {target} was not pulled") as error:
        by_target(client, NET, [target])
    assert error.value.hint == f"fetch it: wszoo pull net:1 {gpu} --from REMOTE"


def test_a_target_that_does_not_exist_lists_those_that_do(origin):
    with pytest.raises(NotFoundError, match="no plan of net for 'rtx-sm75'") as error:
        by_target(origin, NET, ["rtx-sm75"])
    assert error.value.hint == "there is: portable, rtx-sm86, rtx-sm89"


def test_a_component_that_does_not_exist_is_named(origin):
    with pytest.raises(NotFoundError, match="has no component 'unet'") as error:
        everything_here(origin, NET, ["unet"])
    assert error.value.hint == "there is: net"


def test_two_plans_for_one_target_are_not_guessed_between(store):
    publish_model(store, "net:1")

    def rename(config):
        return msgspec.structs.replace(config, target=msgspec.structs.replace(config.target, name="same"))

    replace_in_index(store, "net:1", plan_config=rename)
    with pytest.raises(UsageError, match="has 3 plans of net for same"):
        by_target(store, NET, ["same"])


def test_plans_that_are_not_here_and_that_lost_their_annotations_are_passed_over(origin, store):
    def bare(index):
        manifests = tuple(msgspec.structs.replace(each, annotations={}) for each in index.manifests)
        return msgspec.structs.replace(index, manifests=manifests)

    replace_in_index(origin, "net:1", index=bare)
    pull(store, DirectoryRemote(origin.layout.root), NET, around("sm89"))
    assert targets(everything_here(store, NET)) == ["rtx-sm89"]
