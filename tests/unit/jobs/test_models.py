from __future__ import annotations

import json

import pytest

from largeforge.api.run import AdapterSource, LoraSettings
from largeforge.jobs import errors, models

LORA = LoraSettings(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["all-linear"])
TRAINED = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["v_proj", "q_proj"]}


def source(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(TRAINED | settings))
    return AdapterSource(uri="pvc://models/first", field="spec.base.fineTuneJobRef", path=str(folder))


def test_an_adapter_of_the_same_shape_is_trained_further(tmp_path):
    models.check_adapter(source(tmp_path / "a"), LORA)
    named = LORA.model_copy(update={"target_modules": ["q_proj", "v_proj"]})
    models.check_adapter(source(tmp_path / "a"), named)


def test_dropout_is_no_shape(tmp_path):
    models.check_adapter(source(tmp_path / "a"), LORA.model_copy(update={"lora_dropout": 0.5}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8}, "spec.peft.r: the adapter pvc://models/first was trained with 8 (got 16); set it the same"),
        ({"lora_alpha": 16}, "spec.peft.loraAlpha: .* trained with 16 .got 32.; set it the same"),
        ({"use_dora": True}, "spec.peft.useDora: .* trained with True .got False."),
        ({"use_rslora": True}, "spec.peft.useRslora: .* trained with True .got False."),
        ({"modules_to_save": ["lm_head"]}, r"spec.peft.modulesToSave: .* trained with .'lm_head'. .got None."),
    ],
)
def test_one_of_another_shape_is_the_users_error_with_the_field(tmp_path, settings, message):
    with pytest.raises(errors.InvalidConfigError, match=message.replace("(", "[(]").replace(")", "[)]")) as caught:
        models.check_adapter(source(tmp_path / "a", **settings), LORA)
    assert caught.value.field.startswith("spec.peft.")


def test_other_target_modules_than_named_are_refused(tmp_path):
    with pytest.raises(errors.InvalidConfigError, match=r"spec\.peft\.targetModules"):
        models.check_adapter(source(tmp_path / "a"), LORA.model_copy(update={"target_modules": ["q_proj"]}))


def test_an_adapter_that_is_merged_first_may_have_any_shape(tmp_path):
    models.check_adapter(source(tmp_path / "a", r=8), None)


def test_what_is_no_lora_adapter_is_refused(tmp_path):
    with pytest.raises(errors.BaseInvalidError, match="is no LoRA adapter"):
        models.check_adapter(source(tmp_path / "a", peft_type="IA3"), LORA)
    (tmp_path / "a" / "adapter_config.json").unlink()
    missing = AdapterSource(uri="pvc://models/first", field="spec.base.expertRef", path=str(tmp_path / "a"))
    with pytest.raises(errors.BaseInvalidError, match="name the folder of a LoRA adapter") as caught:
        models.check_adapter(missing, LORA)
    assert caught.value.field == "spec.base.expertRef"


class Named:
    """A model by the names of its modules."""

    def __init__(self, *names):
        self.names = names

    def named_modules(self):
        return [("", self), *((name, object()) for name in self.names)]


def test_a_module_to_train_whole_that_the_base_lacks_is_named():
    lora = LORA.model_copy(update={"modules_to_save": ["lm_head", "wte"]})
    with pytest.raises(models.TargetModulesNotFoundError) as caught:
        models.check_modules(lora, Named("model.embed_tokens", "lm_head"))
    assert str(caught.value) == (
        "spec.peft.modulesToSave: the base has no module 'wte'; choose from embed_tokens, lm_head"
    )
    assert (caught.value.reason, caught.value.exit_code) == ("TargetModulesNotFound", 64)
