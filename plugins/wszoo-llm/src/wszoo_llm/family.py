"""The family ``llm``: from a transformers folder to one network with a cache, compared with transformers."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from wszoo.errors import UsageError
from wszoo.families.checks import check_graph
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.provenance import library_versions
from wszoo.families.quantize import SCHEMES, Loss
from wszoo.families.sources import check_options
from wszoo.families.spool import Spool
from wszoo.store.files import check_room
from wszoo.weights.tensor import DTYPES
from wszoo_llm import presets, recipe, source, weights
from wszoo_llm.layers import layer_of
from wszoo_llm.network import DTYPES as PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wszoo.families.bind import Quantized
    from wszoo.families.protocol import ExportRequest, PulledModel, SourceRequest
    from wszoo.progress import Progress
    from wszoo.schema.plan import Profile
    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import Tensor
    from wszoo_llm.compare import Subject
    from wszoo_llm.traced import Traced

OPTIONS = {
    "compute": "fp16, bf16 or fp32: what a quantized network computes in; else the checkpoint's own, or fp16",
    "logits": "'all' gives those of every position, not of the last",
    "compare": "'no' publishes without comparing with transformers",
    "tensor-parallel": "2, 4, ...: cut every layer for so many GPUs; has not been run on GPUs",
    "remote-code": "'yes' runs the folder's own Python code where transformers does not know the architecture",
    "licence": "an SPDX expression, such as MIT or Apache-2.0",
}
LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
MAX_RANKS = 64


class LlmFamily:
    """Decoder language models from transformers folders."""

    name = "llm"
    summary = "language models: a transformers folder with safetensors (Llama, Mistral, Gemma, Phi, Qwen, GLM, ...)"

    def export(self, request: ExportRequest) -> Export:
        """Read the folder; the network is exported when it is asked for.

        Raises:
            UsageError: an option, precision or profile that the family does not know, pickles, or code in the folder.
            NotFoundError: a file or shard is missing.
            MalformedError, IntegrityError: a damaged file, or shards that do not belong together.
            BuildError: an architecture or checkpoint that cannot be exported; while iterating: an export that differs.
            StorageError: not enough room on the disk.
            MissingExtraError: torch or transformers is not installed.
        """
        check_options(request.options, OPTIONS)
        job = _Job(request)
        return Export(
            components=job.components(),
            assets={**recipe.assets(job.source), recipe.ASSET: recipe.make(job.source, job.context, job.ranks)},
            licence=request.options.get("licence", ""),
            options=job.record,
            provenance=library_versions(LIBRARIES),
        )

    def choose_files(self, names: Sequence[str], request: SourceRequest) -> Sequence[str]:
        """The configuration, the tokenizer and the weights in transformers' own layout.

        Raises:
            UsageError: an option that the family does not know.
        """
        check_options(request.options, OPTIONS)
        return source.choose_files(names, remote_code=_yes(request.options, "remote-code", "no"))

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Continue a prompt, or answer it.

        Raises:
            UsageError: the arguments make no sense, or a prompt is too long.
            NotFoundError: the model lacks a component or an asset.
            MalformedError: an asset that is not what it should be.
            MissingExtraError: transformers is not installed.
        """
        from wszoo_llm.demo import answer

        return answer(model, arguments, progress)


class _Job:
    """One export: what its steps share."""

    def __init__(self, request: ExportRequest) -> None:
        options = request.options
        self.request = request
        self.scheme = SCHEMES.get(request.precision)
        _check_precision(request.precision, options.get("compute", ""))
        self.compared = _yes(options, "compare", "yes")
        self.every_logit = _choice(options, "logits", ("last", "all")) == "all"
        self.source = source.read_source(request.source, remote_code=_yes(options, "remote-code", "no"))
        self.tensors = weights.read_tensors(self.source)
        self.compute = self._compute()
        self.context = recipe.trained_context(self.source.config)
        self.ranks = self._ranks()
        self._check_profiles()
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        check_room(request.scratch, 2 * size, "export and store the weights")
        self.record = {
            "architecture": self.source.model_type,
            "layers": str(self.source.layers),
            "precision": request.precision or self.compute,
            "computes_in": self.compute,
            "compared_with": "transformers" if self.compared else "nothing, as the publisher wished",
        }
        if self.ranks > 1:
            self.record["tensor_parallel"] = f"{self.ranks} ranks; not run on GPUs"

    def components(self) -> Iterator[ExportedComponent]:
        from wszoo_llm import network, traced

        request, progress = self.request, self.request.progress
        module = network.bare_module(self.source, self.compute)
        with progress.stage("look at the network"):
            placed = weights.place(self.tensors, module)
        spool = Spool(request.scratch / "weights.bin")
        plain = weights.convert(placed, module, spool, progress)
        if self.ranks > 1:
            yield from self._segments(plain, spool)
            return
        with progress.stage("export"):
            made = traced.trace(self.source, self.compute, module, every_logit=self.every_logit)
        self.record["traced_layers"] = ", ".join(map(str, made.layers))
        del module
        gc.collect()  # modules have reference cycles, and the builder will need their memory
        network_graph = self._bound(made, plain, spool)
        found, _ = self._profiles(network_graph)
        yield ExportedComponent(name=recipe.COMPONENT, graph=network_graph, profiles=found)

    def _segments(self, plain: Mapping[str, Tensor], spool: Spool) -> Iterator[ExportedComponent]:
        from wszoo_llm.compare import compare_split
        from wszoo_llm.parallel import is_cut, segments

        made: dict[str, Graph] = {}
        quantized = self._quantize([name for name in plain if is_cut(name)], plain, spool) if self.scheme else {}
        with self.request.progress.stage("export", unit="segments") as advance:
            for name, graph in segments(self.source, self.compute, plain, quantized, ranks=self.ranks, spool=spool):
                check_graph(graph, f"the export of {name}", full=True)
                made[name] = graph
                advance(1)
        if self.compared:
            with self.request.progress.stage("compare with transformers"):
                found = compare_split(self._subject(plain, quantized), made, self.ranks)
            self.record["compared_with"] = "transformers, all layers, summed over the ranks"
            self.record["error"] = f"{found.max_relative_error:.2g} of max|output|"
        for name, graph in made.items():
            yield ExportedComponent(name=name, graph=graph, profiles=self._profiles(graph)[0])

    def _subject(self, plain: Mapping[str, Tensor], quantized: Mapping[str, Quantized]) -> Subject:
        from wszoo_llm.compare import Subject

        return Subject(
            source=self.source,
            precision=self.compute,
            weights=plain,
            quantized=quantized,
            every_logit=self.every_logit,
            scratch=self.request.scratch,
        )

    def _bound(self, made: Traced, plain: Mapping[str, Tensor], spool: Spool) -> Graph:
        from wszoo.families.bind import bind, linear_weights

        model = made.model
        linear = linear_weights(model, set(plain))
        quantized = self._quantize([name for name in plain if name in linear], plain, spool) if self.scheme else {}
        used = {value.name for value in model.graph.input}
        rest = {name: tensor for name, tensor in plain.items() if name in used and name not in quantized}
        graph = bind(model, rest, quantized)
        check_graph(graph, "the export", full=True)
        if self.compared:
            self._compare(graph, self._subject(plain, quantized), made)
        return graph

    def _quantize(self, names: Sequence[str], plain: Mapping[str, Tensor], spool: Spool) -> dict[str, Quantized]:
        from wszoo.families.quantize import quantize_all

        scheme = self.scheme
        assert scheme is not None
        # The output layer stays as it is, as in NVIDIA's and ONNX Runtime's recipes: it decides between words.
        chosen = [name for name in names if _layer(name) and scheme.fits(plain[name].shape)]
        found: dict[str, Quantized] = {}
        losses: dict[str, Loss] = {}
        total = sum(plain[name].nbytes for name in chosen)
        with self.request.progress.stage(f"quantize to {scheme.name}", total) as advance:
            wanted = (plain[name] for name in chosen)
            for tensor, made, loss in quantize_all(wanted, scheme, DTYPES[PRECISIONS[self.compute]], spool):
                found[tensor.name] = made
                losses[_layer(tensor.name)] = losses.get(_layer(tensor.name), Loss()) + loss
                advance(tensor.nbytes)
        if not found:
            raise UsageError(
                f"no weight of this model can be quantized to {scheme.name}",
                hint=f"its matrices have no rows of whole blocks of {scheme.block}" if scheme.block else "take fp16",
            )
        self.record["quantized"] = f"{len(found)} of {len(plain)} weights"
        for layer, loss in losses.items():
            self.record[f"error.{layer}"] = f"{loss.relative:.2g} of the weights' size, greatest {loss.greatest:.2g}"
        return found

    def _compare(self, graph: Graph, subject: Subject, made: Traced) -> None:
        from wszoo_llm.compare import compare

        with self.request.progress.stage("compare with transformers"):
            found = compare(subject, graph, made)
        # Export.options is read when all components are there.
        depth = "all layers" if found.layers == self.source.layers else f"{found.layers} of its layers"
        self.record["compared_with"] = f"transformers, {depth}"
        self.record["error"] = f"{found.comparison.max_relative_error:.2g} of max|output|"
        if subject.quantized:
            self.record["error.logits"] = f"{found.drift:.2g} of the logits' spread, by quantizing"

    def _compute(self) -> str:
        own = weights.own_precision(self.tensors)
        if self.scheme is None:
            return self.request.precision or own
        return self.request.options.get("compute") or ("fp16" if own == "fp32" else own)

    def _ranks(self) -> int:
        text = self.request.options.get("tensor-parallel", "1")
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_RANKS:
            raise UsageError(f"--option tensor-parallel={text!r} is no number from 1 to {MAX_RANKS}")
        if int(text) > 1:
            from wszoo_llm.parallel import check

            if self.every_logit or self.compute == "bf16":
                raise UsageError(
                    "--option tensor-parallel= is for networks that compute in fp32 or fp16, with the last logits only",
                    hint="for a bf16 checkpoint: --precision fp16, or --option compute=fp16 with quantized weights",
                )
            check(self.source, int(text), self.scheme.block if self.scheme else 0)
        return int(text)

    def _check_profiles(self) -> None:
        # Before an export that takes minutes; the inputs' names do not matter to it.
        if self.request.profiles or self.request.needs_profiles:
            _, self.context = presets.profiles((), self.request.profiles, trained=self.context)

    def _profiles(self, graph: Graph) -> tuple[tuple[Profile, ...], int]:
        if not (self.request.profiles or self.request.needs_profiles):
            return (), self.context
        trained = recipe.trained_context(self.source.config)
        return presets.profiles(graph.inputs, self.request.profiles, trained=trained)


def _layer(name: str) -> str:
    """``layer.12`` of a weight; empty for one outside of the layers."""
    layer = layer_of(name)
    return "" if layer is None else f"layer.{layer}"


def _check_precision(precision: str, compute: str) -> None:
    known = (*PRECISIONS, *SCHEMES)
    if precision and precision not in known:
        raise UsageError(f"no precision {precision!r}", hint=f"the family 'llm' knows {', '.join(known)}")
    if compute and (precision not in SCHEMES or compute not in PRECISIONS):
        raise UsageError(
            f"--option compute={compute} does not go with --precision {precision or '(none)'}",
            hint=f"it takes {', '.join(PRECISIONS)}, and goes with {', '.join(SCHEMES)}",
        )


def _yes(options: Mapping[str, str], name: str, default: str) -> bool:
    return _choice(options, name, (default, "no" if default == "yes" else "yes")) == "yes"


def _choice(options: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    found = options.get(name, known[0])
    if found not in known:
        raise UsageError(f"--option {name}={found!r} is none of {', '.join(known)}")
    return found
