"""What a zoo takes on object storage behind a CDN: bytes, requests, money a month. See docs/scale.md for the formulas.

Prices are inputs, in any currency; the default is 1 for each, so that the columns are quantities.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

GB = 1e9
DOCUMENTS = 3  # of a model: index, manifest, config
PLAN_FILES = 3  # manifest, config, layer
PLAN_DOCUMENTS = 1000  # bytes of a plan's manifest and config
IN_INDEX = 810  # bytes of a plan in its model's index
IN_LIST = 230  # bytes of a model in index.json


@dataclass(frozen=True, slots=True)
class Zoo:
    """What is published."""

    models: int
    components: int
    targets: int
    weights: float  # stored bytes a model, those that it does not share
    plan: float  # shipped bytes a plan
    packs: int  # a model

    @property
    def plans(self) -> int:
        return self.components * self.targets

    @property
    def stored(self) -> float:
        """Bytes."""
        return self.models * (self.weights + self.plans * (self.plan + PLAN_DOCUMENTS + IN_INDEX) + IN_LIST)

    @property
    def files(self) -> int:
        return self.models * (DOCUMENTS + self.components + self.packs + self.plans * PLAN_FILES)

    @property
    def full_engines(self) -> float:
        """Bytes of every engine with its own weights."""
        return self.models * self.weights * self.targets

    def pull(self, ranges: int) -> tuple[int, float]:
        """Requests and bytes of a first pull of one model for one GPU, of a layout that lists all models."""
        requests = 1 + DOCUMENTS + self.components * (1 + PLAN_FILES) + max(self.packs, ranges)
        documents = self.models * IN_LIST + self.plans * IN_INDEX + self.components * PLAN_DOCUMENTS
        return requests, documents + self.weights + self.components * self.plan


def main() -> None:
    """Print the quantities and what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("models", 10_000), ("components", 1), ("targets", 12), ("packs", 40), ("pulls", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ranges", type=int, default=0, help="requests for weights, if more than packs")
    parser.add_argument("--weights", type=float, default=2e9, help="stored bytes of weights a model")
    parser.add_argument("--plan", type=float, default=50e3, help="shipped bytes a plan")
    parser.add_argument("--hit", type=float, default=0.95, help="share of bytes and requests that the CDN answers")
    for name in ("storage", "put", "get", "origin", "request", "egress"):
        parser.add_argument(f"--{name}-price", type=float, default=1.0)
    given = parser.parse_args()
    zoo = Zoo(given.models, given.components, given.targets, given.weights, given.plan, given.packs)
    requests, nbytes = zoo.pull(given.ranges)
    missed = (1 - given.hit) * given.pulls
    rows = [
        ("stored, GB a month", zoo.stored / GB, given.storage_price),
        ("files written once, thousands", zoo.files / 1e3, given.put_price),
        ("requests at the storage, thousands a month", missed * requests / 1e3, given.get_price),
        ("from storage to CDN, GB a month", missed * nbytes / GB, given.origin_price),
        ("requests at the CDN, thousands a month", given.pulls * requests / 1e3, given.request_price),
        ("from CDN to clients, GB a month", given.pulls * nbytes / GB, given.egress_price),
    ]
    print("| what | quantity | price of one | cost |\n|---|---|---|---|")
    for what, quantity, price in rows:
        print(f"| {what} | {quantity:,.1f} | {price:g} | {quantity * price:,.2f} |")
    print(f"\nFull engines for every target would be {zoo.full_engines / GB:,.0f} GB; a pull is {requests} requests.")


if __name__ == "__main__":
    main()
