import pytest

from wszoo.backends.trt_plan import read_header, release_of
from wszoo.errors import MalformedError

HEAD = bytes.fromhex("767472740000000002000000000000006c1b03000000000001070174") + bytes(36)


def test_header_of_a_real_plan():
    header = read_header(HEAD, b"vtrt", "the plan")
    assert (header.version, header.release) == ((1, 7, 1, 116), "1.7.1")
    assert release_of("1.7.1.116") == "1.7.1"


@pytest.mark.parametrize("data", [b"", HEAD[:63], b"PK\x03\x04" + HEAD[4:], bytes(64)])
def test_what_is_no_plan_is_malformed(data):
    with pytest.raises(MalformedError, match="the plan is no plan"):
        read_header(data, b"vtrt", "the plan")
