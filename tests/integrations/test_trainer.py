"""Gradual pruning in the real `transformers.Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import niwaki
from niwaki.core.errors import SettingError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=60,
        max_position_embeddings=16,
    )
    return transformers.BertForSequenceClassification(config)


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, place: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(place)
        words = torch.randint(60, (12,), generator=generator)
        return {"input_ids": words, "labels": int(words[0]) % 2}


INPUTS = {"input_ids": torch.arange(24).reshape(2, 12)}


def trainer(folder: Path, callbacks: list[Any], network: Any = None, **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            **settings,
        }
    )
    return transformers.Trainer(
        model=network or model(), args=arguments, train_dataset=Texts(), callbacks=callbacks
    )


def pruning(**settings: Any) -> Any:
    from niwaki.integrations.transformers import GradualPruning

    asked = {"times": 2, "only": "*intermediate*", **settings}
    return GradualPruning(INPUTS, "channels=0.5", **asked)


@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}])
def test_the_model_of_the_trainer_becomes_smaller(tmp_path: Path, settings: dict[str, Any]) -> None:
    callback = pruning(press="greg:reg=1e-3" if not settings else None)
    run = trainer(tmp_path, [callback], **settings)
    layer = run.model.bert.encoder.layer[0].intermediate.dense
    run.train()
    assert run.model.bert.encoder.layer[0].intermediate.dense is layer
    assert layer.out_features == 32
    assert run.model.config.intermediate_size == 32
    assert callback.gradual.done == 8
    assert callback.result.model is run.model
    optimizer = run.optimizer.optimizer
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in run.model.parameters()
    }
    assert run.predict(Texts()).predictions.shape == (32, 2)
    run.accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)  # autocast's forward
    niwaki.save(callback.result, tmp_path / "pruned")
    again = niwaki.load(tmp_path / "pruned")
    x = {"input_ids": torch.arange(12)[None]}
    assert torch.equal(again(**x).logits, run.model.eval()(**x).logits)


def test_a_schedule_longer_than_the_run(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="goes on to step 500, and the run has 8"):
        trainer(tmp_path, [pruning(begin=100, end=500)]).train()


def test_twice(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has a pruning schedule already"):
        trainer(tmp_path, [pruning(), pruning()]).train()


def test_the_best_of_checkpoints_may_be_larger(tmp_path: Path) -> None:
    run = trainer(tmp_path, [pruning()])
    run.args.load_best_model_at_end = True
    with pytest.raises(SettingError, match="load_best_model_at_end"):
        run.train()


def test_a_training_that_stops_early_warns(tmp_path: Path) -> None:
    class Stop(transformers.TrainerCallback):  # type: ignore[misc,name-defined]  # read without types
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = state.global_step == 3
            return control

    callback = pruning()
    with pytest.warns(UserWarning, match="1 of 2 cuts were not made: the training stopped after 3"):
        trainer(tmp_path, [callback, Stop()]).train()
    with pytest.raises(SettingError, match="1 of 2 cuts"):
        callback.result  # noqa: B018


def test_resumed_before_the_first_cut_and_after_it(tmp_path: Path) -> None:
    kept = {"save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, [pruning(begin=5, end=7)], **kept).train()
    callback = pruning(begin=5, end=7)
    run = trainer(tmp_path, [callback], **kept)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert run.model.config.intermediate_size == 32
    with pytest.raises(SettingError, match="resumed before its first cut only"):
        trainer(tmp_path, [pruning(begin=1, end=7)], **kept).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )


def test_before_the_training() -> None:
    with pytest.raises(SettingError, match="the training has not begun"):
        pruning().result  # noqa: B018


def test_several_processes_are_refused() -> None:
    from niwaki.integrations.asked import refuse_processes

    with pytest.raises(SettingError, match="this run has 4"):
        refuse_processes(4)
