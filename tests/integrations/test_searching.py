"""A search in the Trainers of Lightning and of transformers: the module given is untouched, and training goes on."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import metaprune as mp
from metaprune.integrations.searching import follow
from metaprune.methods.gates.running import Running
from tests.laws import oracle
from tests.methods import small

BUDGET = mp.Budget(macs=0.5, multiple_of=4)
PICTURES = small.pictures(48, 1)
TRAIN = DataLoader(PICTURES, batch_size=8)
LR = 0.01

pytestmark = pytest.mark.filterwarnings("ignore")  # what these libraries say of themselves


@pytest.fixture(scope="module")
def dense() -> tuple[nn.Module, mp.ChannelGraph]:
    model = small.network()
    return model, mp.trace(model, small.EXAMPLE)


def start(dense: tuple[nn.Module, mp.ChannelGraph], epochs: int = 2) -> Running[Any]:
    return mp.DHP().start(*dense, BUDGET, steps=epochs * len(TRAIN))


def by_hand(search: Running[Any], accumulate: int = 1) -> mp.Plan:
    """What the search finds in a plain loop over two epochs."""
    optimizer = torch.optim.SGD(search.groups(LR), LR)
    search.model.train()
    for place, (images, labels) in enumerate([batch for _ in range(2) for batch in TRAIN], start=1):
        (F.cross_entropy(search.model(images), labels) / accumulate).backward()
        if place % accumulate == 0:
            optimizer.step()
            search.step(LR)
            optimizer.zero_grad()
    return search.finish().plan


def lit(search: Running[Any] | None, net: nn.Module, groups: Any = None) -> Any:
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            known = self.net.parameters() if search is None else search.groups(LR)
            return torch.optim.SGD(groups or known, LR)

    return Lit()


def fit(module: Any, epochs: int, *callbacks: Any, path: str | None = None, **more: Any) -> Any:
    import lightning

    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **more,
    )
    trainer.fit(module, TRAIN, ckpt_path=path)
    return trainer


def test_lightning_finds_what_a_plain_loop_does(dense: Any) -> None:
    before = oracle.fingerprint(dense[0])
    search = start(dense)
    trainer = fit(lit(search, search.model), 5, mp.integrations.lightning.SearchCallback(search))
    assert trainer.global_step == search.steps == search.done, "it ends when the search does"
    cut = search.finish()
    assert cut.plan == by_hand(start(dense))
    assert mp.macs(dense[1], cut.plan) <= 0.5 * mp.macs(dense[1])
    assert oracle.fingerprint(dense[0]) == before
    weights = [tensor.clone() for tensor in cut.model.parameters()]
    fit(lit(None, cut.model), 1)
    assert any(not torch.equal(a, b) for a, b in zip(weights, cut.model.parameters(), strict=True)), "it trains on"


def test_lightning_accumulates_and_goes_on(dense: Any, tmp_path: Path) -> None:
    search = start(dense, epochs=1)
    half = fit(
        lit(search, search.model), 1, mp.integrations.lightning.SearchCallback(search), accumulate_grad_batches=2
    )
    assert search.done == half.global_step == len(TRAIN) // 2
    half.save_checkpoint(tmp_path / "half.ckpt")
    again = start(dense, epochs=1)
    callback = mp.integrations.lightning.SearchCallback(again)
    fit(lit(again, again.model), 2, callback, path=str(tmp_path / "half.ckpt"), accumulate_grad_batches=2)
    assert again.done == again.steps
    assert again.finish().plan == by_hand(start(dense, epochs=1), accumulate=2)


def test_an_optimizer_without_gates_is_refused(dense: Any) -> None:
    search = start(dense)
    weights = [{"params": list(search.model.network.parameters())}]
    with pytest.raises(mp.MetapruneError, match=r"no optimizer has the gates .* search.groups\(lr\)"):
        fit(lit(search, search.model, weights), 1, mp.integrations.lightning.SearchCallback(search))
    assert search.done == 0
    with pytest.raises(mp.MetapruneError, match=r"expected a search, got DHP; give mp.DHP\(\).start"):
        fit(lit(search, search.model), 1, mp.integrations.lightning.SearchCallback(mp.DHP()))


class Search:
    """Notes the rates that it is stepped at."""

    def __init__(self, steps: int) -> None:
        self.model = nn.Module()
        self.model.latents = nn.ParameterList([nn.Parameter(torch.ones(3))])
        self.rates: list[float] = []
        self.steps = steps

    @property
    def done(self) -> int:
        return len(self.rates)

    def step(self, lr: float) -> None:
        self.rates.append(lr)

    def groups(self, lr: float) -> None: ...

    def finish(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"rates": [0.1] * 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rates = state["rates"]


def test_a_search_is_stepped_at_the_rate_of_the_weights() -> None:
    """The largest, where groups have several; that of the gates is their own. After its last step it is left alone."""
    search = Search(steps=3)
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": [weight], "lr": lr} for weight, lr in zip(weights, (0.01, 0.02), strict=True)]
    gates = {"params": list(search.model.latents.parameters()), "lr": 0.5}
    optimizers = [torch.optim.SGD([gates]), torch.optim.SGD(groups)]
    assert not follow(search, optimizers)
    optimizers[1].param_groups[1]["lr"] = 0.001
    assert not follow(search, optimizers)
    assert follow(search, optimizers[:1])
    assert follow(search, optimizers)
    assert search.rates == [0.02, 0.01, 0.5]


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": PICTURES[index][0], "labels": PICTURES[index][1]}


class WithLoss(nn.Module):
    """A network in the Trainer's form."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.net(x)
        return {"loss": F.cross_entropy(scores, labels), "logits": scores}


def run(
    model: nn.Module, search: Running[Any] | None, folder: Path, epochs: int, resume: Any = None, **more: Any
) -> Any:
    from transformers import Trainer, TrainingArguments

    settings = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"} | more
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        learning_rate=LR,
        remove_unused_columns=False,
        label_names=["labels"],
        **settings,
    )
    given: dict[str, Any] = {}
    if search is not None:
        given = {
            "optimizers": (torch.optim.SGD(search.groups(LR), LR), None),
            "callbacks": [mp.integrations.transformers.SearchCallback(search)],
        }
    trainer = Trainer(WithLoss(model), arguments, train_dataset=Rows(), **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.usefixtures("trainers_collect_nothing")
def test_the_trainer_searches_and_training_goes_on(dense: Any, tmp_path: Path) -> None:
    before = oracle.fingerprint(dense[0])
    search = start(dense)
    trainer = run(search.model, search, tmp_path, 5)
    assert trainer.state.global_step == search.steps == search.done
    cut = search.finish()
    assert mp.macs(dense[1], cut.plan) <= 0.5 * mp.macs(dense[1])
    assert oracle.fingerprint(dense[0]) == before
    weights = [tensor.clone() for tensor in cut.model.parameters()]
    run(cut.model, None, tmp_path, 1)
    assert any(not torch.equal(a, b) for a, b in zip(weights, cut.model.parameters(), strict=True))


@pytest.mark.usefixtures("trainers_collect_nothing")
def test_the_trainer_goes_on_from_a_checkpoint(dense: Any, tmp_path: Path) -> None:
    whole = start(dense)
    run(whole.model, whole, tmp_path / "whole", 2, save_strategy="steps", save_steps=7)
    again = start(dense)
    run(again.model, again, tmp_path / "whole", 2, resume=str(tmp_path / "whole" / "checkpoint-7"))
    assert again.done == again.steps
    assert again.plan == whole.plan


def test_a_checkpoint_without_the_search_is_refused(tmp_path: Path) -> None:
    search = Search(steps=9)
    callback = mp.integrations.transformers.SearchCallback(search)
    optimizer = torch.optim.SGD(search.model.latents.parameters())
    where, at = SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=7)
    with pytest.raises(mp.MetapruneError, match=r"goes on at step 7, and the search has done 0; .*checkpoint-7"):
        callback.on_train_begin(where, at, None, optimizer=optimizer)
    callback.on_save(where, at, None)
    callback.on_train_begin(where, at, None, optimizer=optimizer)
    assert search.done == 7


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_library_that_is_not_there_is_said_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = ("lightning", "pytorch_lightning", "transformers")
    for module in [m for m in sys.modules if m.split(".")[0] in blocked]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("metaprune.integrations.lightning", "metaprune.integrations.trainer"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    class Blocker:
        def find_spec(self, found: str, *_: Any) -> None:
            if found.split(".")[0] in blocked:
                raise ImportError(f"No module named {found!r}")

    monkeypatch.setattr(sys, "meta_path", [Blocker(), *sys.meta_path])
    with pytest.raises(mp.MetapruneError, match=f"integrations.{name}: needs the package"):
        _ = importlib.import_module(f"metaprune.integrations.{name}").SearchCallback
