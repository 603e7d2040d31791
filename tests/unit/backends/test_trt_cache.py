"""With a fake of the runtime: none of this has run on a GPU."""

from wszoo.backends.trt_cache import RuntimeCache

CACHE = b"cache of kernels"


def _cache(fake_trt, fake, path):
    engine = fake.Engine(fake_trt, {"tensors": {}, "profiles": []})
    cache = RuntimeCache(fake_trt, engine, path)
    assert cache.context() is not None
    return cache, engine


def test_compiled_kernels_are_kept_for_the_next_process(fake_trt, fake, tmp_path):
    path = tmp_path / "new" / "file"
    cache, engine = _cache(fake_trt, fake, path)
    assert engine.caches[0].data == b""
    cache.save({"x": (1, 2)})
    assert path.read_bytes() == CACHE
    _, again = _cache(fake_trt, fake, path)
    assert again.caches[0].data == CACHE


def test_only_new_shapes_are_saved_and_only_a_few(fake_trt, fake, tmp_path):
    path = tmp_path / "file"
    cache, _ = _cache(fake_trt, fake, path)
    writes = 0
    for size in [1, 1, *range(100)]:
        path.unlink(missing_ok=True)
        cache.save({"x": (size,)})
        writes += path.exists()
    assert writes == 8


def test_damaged_cache_is_ignored(fake_trt, fake, tmp_path):
    (tmp_path / "file").write_bytes(b"garbage")
    _, engine = _cache(fake_trt, fake, tmp_path / "file")
    assert engine.caches[0].data == b""


def test_unwritable_cache_costs_nothing_but_time(fake_trt, fake, tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache, _ = _cache(fake_trt, fake, tmp_path / "file" / "below")
    cache.save({"x": (1,)})


def test_product_without_a_cache_has_a_context(fake_trt, fake, tmp_path, monkeypatch):
    monkeypatch.delattr(type(fake_trt), "IRuntimeCache")
    cache, engine = _cache(fake_trt, fake, tmp_path / "file")
    cache.save({"x": (1,)})
    assert (engine.caches, list(tmp_path.iterdir())) == ([], [])
