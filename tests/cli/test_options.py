"""Options from a file, inputs of every kind, the version, completion, and lines that help."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import metaprune
from metaprune.cli import app
from metaprune.cli.errors import UsageError
from metaprune.cli.inputs import Inputs, inputs_of
from metaprune.models import MODELS

TOKENS = '''
import torch
from torch import nn

class Tokens(nn.Module):
    """Takes tokens and a mask, both by name."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.hidden = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, ids, mask=None):
        x = torch.relu(self.hidden(self.embedding(ids)))
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.head(x.mean(1))

def tokens():
    return Tokens()
'''
IDS = "ids=int64<50:4x6,mask=float32:4x6"


def metaprune_(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    (tmp_path / "tokens.py").write_text(TOKENS)
    return f"{tmp_path}/tokens.py:tokens"


def test_tokens_and_several_inputs(tokens: str, tmp_path: Path) -> None:
    shown = metaprune_("inspect", tokens, "--input", IDS)
    assert "axes are free" in shown.stdout, shown.output
    shown = metaprune_("inspect", tokens, "--input", "int64<50:4x6", "--json")
    assert json.loads(shown.stdout)["params"] == 50 * 16 + 16 * 24 + 24 + 24 * 4 + 4
    shown = metaprune_("bench", tokens, "--input", IDS, "--batch", "1,3", "--threads", "1", "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    shown = metaprune_("export", tokens, "--input", IDS, "--to", tmp_path / "m.pt2")
    assert "equal to the module" in shown.stdout, shown.output
    program = torch.export.load(tmp_path / "m.pt2")
    assert program.module()(ids=torch.zeros(2, 6).long(), mask=torch.ones(2, 6)).shape == (2, 4)


def test_words_for_inputs() -> None:
    (picture,), none = Inputs.of("3x8x8").example(5)
    assert (picture.shape, none) == ((5, 3, 8, 8), {})
    (first,), named = Inputs.of("int32<7:8x32,mask=int64:8x32,flag=bool:1,x=bfloat16:8").example()
    assert (first.dtype, first.shape, int(first.max())) == (torch.int32, (8, 32), 6)
    assert named["mask"].eq(1).all()
    assert named["flag"].dtype is torch.bool
    assert named["x"].dtype is torch.bfloat16
    _, named = Inputs.of("ids=int64:8x32,mask=int64:8x32,table=float32:5x2").example(3)
    assert [tuple(tensor.shape) for tensor in named.values()] == [(3, 32), (3, 32), (5, 2)]
    assert torch.equal(Inputs.of("3x8x8").example(2)[0][0], Inputs.of("3x8x8").example(2)[0][0])


NONE = """
x 3x 3xx3 -3 3x-1 0 3.5 ids= =3 ids=int64 ids=int64: ids=int9:3 a.b=3 ids=int64<0:3 x=float32<3:3 ids=int64<:3
ids=3,ids=3 ids=3,4 , 3, 9999999999x9999999999 uint8<1000:3 bool<2:3 ids=int64:3:4 ids==3
"""


@pytest.mark.parametrize("words", ["", *NONE.split()])
def test_words_that_are_no_inputs(words: str) -> None:
    with pytest.raises(UsageError, match="--input: expected"):
        Inputs.of(words)


def test_networks_of_the_hub_bring_their_own_inputs(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=3000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "text")
    shown = metaprune_("inspect", f"hf:{tmp_path / 'text'}")
    assert "axes are free" in shown.stdout, shown.output
    pictures = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    own = inputs_of(transformers.ViTModel(pictures), 4)
    assert own is not None
    assert own[1]["pixel_values"].shape == (4, 3, 16, 16)
    assert inputs_of(torch.nn.Linear(2, 2)) is None


def test_options_from_a_file(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(MODELS["resnet8"](classes=10, channels=1).state_dict(), weights)
    file = tmp_path / "run.toml"
    file.write_text(
        f'data = "digits"\nthreads = 1\ndevice = "cpu"\nprecision = "32-true"\nmodel = "resnet8"\n'
        f'[evaluate]\nweights = "{weights}"\nbatch-size = 50\nval_share = 0.25\n[prune]\nmacs = 0.5\n'
    )
    result = metaprune_("evaluate", "--config", file)
    assert result.exit_code == 0, result.output
    assert "1078 train, 360 val" in " ".join(result.stdout.split())
    result = metaprune_("evaluate", "--config", file, "--val-share", "0.5")  # the line is stronger
    assert "719 train, 719 val" in " ".join(result.stdout.split())


FILES: dict[str, str] = {
    "this is no TOML": "cannot be read as TOML",
    'modl = "resnet8"': "did you mean 'model'?",
    "colour = 3": "there are",
    "macs = true": "expected macs as one value, got True",
    "macs = [0.5]": "expected macs as one value",
    'macs = "half"': "--macs",
    "macs = 2020-01-01": "--macs",
    'augment = "yes"': "expected augment as true or false",
    'set = "search=0.4"': "expected set as a list",
    "set = [[1]]": "expected set as a list",
    "[prun]\nmacs = 0.5": "a table [prun]",
    "[prune]\nmacks = 0.5": "did you mean 'macs'?",
    "config = 'other.toml'": "has no option for",
    "epochs = 1.5": "--epochs",
    'optimizer = "adam"': "--optimizer",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_with_odd_options(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    words = ["resnet8", "--data", "digits", "--out", tmp_path / "out"]
    result = metaprune_("prune", *words, "--config", tmp_path / "run.toml")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert FILES[text] in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("nowhere.toml", "", "bytes.toml"):
        result = metaprune_("inspect", "--config", tmp_path / name)
        assert "cannot be read as TOML" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_version() -> None:
    said = f"metaprune {metaprune.__version__}\n"
    assert metaprune_("--version").stdout == said
    module = subprocess.run(
        [sys.executable, "-m", "metaprune", "--version"], capture_output=True, text=True, check=True, timeout=300
    )
    assert module.stdout == said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(
        app,
        [],
        prog_name="metaprune",
        env={
            "_METAPRUNE_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "metaprune pru",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "metaprune pru",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    )
    assert re.search(r"(?<!meta)\bprune\b", shown.stdout), shown.stdout
    assert "inspect" not in shown.stdout, "only what begins with the word"


def test_a_wrong_function_is_known_before_data_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def build():\n    pass\n")
    result = metaprune_(
        "prune", f"{tmp_path}/own.py:biuld", "--data", "nowhere/x", "--macs", 0.5, "--out", tmp_path / "o"
    )
    assert "has no function 'biuld'; did you mean 'build'?" in result.stderr
    result = metaprune_("evaluate", "resnet_8", "--data", "nowhere/x")
    assert "did you mean 'resnet8'?" in result.stderr


@pytest.mark.parametrize("macs", [2, 50, 99.5, 100])
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_a_share_in_percent_is_explained(macs: float, cost: str, tmp_path: Path) -> None:
    result = metaprune_("prune", "resnet8", "--data", "digits", f"--{cost}", macs, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"--{cost} {macs / 100:g} keeps {macs:g} %" in result.stderr
    assert not (tmp_path / "out").exists()


def test_limits_and_two_bounds(tmp_path: Path) -> None:
    """Seen in the plan: what is kept, the least and largest widths, and one width for blocks alike."""
    limits = [
        "--keep",
        "stage2.0.conv2",
        "--least",
        "stage2.0.conv1=0.9",
        "--most",
        "stage1.0.conv1=6",
        "--alike",
        "stage3*",
    ]
    shown = metaprune_(
        *("prune", "resnet8", "--data", "digits", "--method", "magnitude", "--macs", 0.8, "--params", 0.7),
        *("--dense-epochs", 1, "--epochs", 1, "--batch-size", 512, "--multiple-of", 2, "--threads", 1),
        *("--precision", "32-true", "--out", tmp_path / "out", *limits),
    )
    assert shown.exit_code == 0, shown.output
    kept = metaprune.Plan.from_json((tmp_path / "out" / "plan.json").read_text()).kept
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    widths = {name: len(kept.get(name, range(axis["before"]))) for axis in report["axes"] for name in [axis["name"]]}
    assert widths["stage2.0.conv2"] == 32
    assert widths["stage1.0.conv1"] <= 6
    assert widths["stage2.0.conv1"] >= 29
    assert widths["stage3.0.conv1"] == widths["stage3.0.conv2"] < 64
    for cost, share in (("macs", 0.8), ("params", 0.7)):
        assert report["pruned"][cost] <= share * report["dense"][cost]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--least", "conv"], "--least: expected PATTERN=WIDTH"),
        (["--most", "conv=wide"], "--most: expected PATTERN=WIDTH"),
        (["--most", "conv=1.5"], "a share up to 1 or a whole number of channels, got 1.5"),
        (["--keep", "convolution"], "'convolution' in keep fits no axis and no module"),
        (["--keep", "*"], "cannot be met"),
    ],
)
def test_limits_that_make_no_sense(options: list[str], said: str, tmp_path: Path) -> None:
    shown = metaprune_("prune", "resnet8", "--data", "digits", "--macs", 0.5, "--out", tmp_path / "out", *options)
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.split())
    assert not (tmp_path / "out").exists()
