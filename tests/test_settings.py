"""A setting is one line, which the command line, `fit`, config.json and the recipes share."""

import json
from dataclasses import fields

import pytest

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.errors import ConfigError
from numpyvit.training.recipes import RECIPES
from numpyvit.training.settings import Settings

NAMES = [setting.name for setting in fields(Settings)]


def tiny(**options):
    return nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2, **options)


def stored(out):
    return json.loads((out / "config.json").read_text())


@pytest.mark.filterwarnings("ignore:the run of 1 steps ends within its warm-up")
def test_fit_and_the_command_line_have_the_same_defaults(tmp_path):
    assert cli.main(["train", "--steps", "1", "--quiet", "--out", str(tmp_path / "cli")]) == 0
    model = nv.create_model("vit_micro_patch2_8")
    train, test = data.load("digits")
    nv.fit(model, train, None, test=test, steps=1, progress=False, out=tmp_path / "fit")
    by_cli, by_fit = stored(tmp_path / "cli"), stored(tmp_path / "fit")
    assert {name: by_cli[name] for name in NAMES} == {name: by_fit[name] for name in NAMES}
    weights = [nv.load_checkpoint(tmp_path / run / "last.safetensors") for run in ("cli", "fit")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert (tmp_path / "cli" / "result.json").read_bytes() == (tmp_path / "fit" / "result.json").read_bytes()


def test_of_arrays_the_settings_follow_from_their_number_and_nothing_is_augmented(tmp_path):
    train, test = data.load("digits")
    nv.fit(tiny(), train.take(slice(0, 200)), test, epochs=1, progress=False, out=tmp_path)
    config = stored(tmp_path)
    assert config["batch_size"] == 16 and config["warmup_steps"] <= 6 and config["augment"] == {}


def test_every_setting_is_an_option_with_its_help_and_in_the_docstring_of_fit(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for setting in fields(Settings):
        assert f"{setting.name}:" in nv.fit.__doc__ and setting.metadata["help"] in nv.fit.__doc__
        option = "--no-augment" if setting.name == "augment" else f"--{setting.name.replace('_', '-')} "
        assert option in text
    assert "default: 0.001; 0.002 for digits; 0.003 for mnist, fashion-mnist; 0.001 with --pretrained" in text


def test_a_misspelt_setting_is_an_error_with_the_name_that_was_meant():
    with pytest.raises(ConfigError, match="there is no setting 'epoch'; did you mean epochs"):
        nv.fit(tiny(), *data.load("digits"), epoch=1, progress=False)


def test_settings_refuse_what_cannot_be_used():
    with pytest.raises(ConfigError, match="batch_size must be an int of at least 1, got 0"):
        Settings(batch_size=0)


@pytest.mark.filterwarnings("ignore:the run of 1 steps ends within its warm-up")
@pytest.mark.parametrize("missing", ["batch_size", "layer_decay", "model"])
def test_a_config_of_another_version_that_lacks_a_setting_is_one_line(tmp_path, missing, capsys):
    assert cli.main(["train", "--steps", "1", "--quiet", "--out", str(tmp_path / "run")]) == 0
    config = stored(tmp_path / "run")
    del config[missing]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert f"config.json: has no setting '{missing}'" in error and error.count("\n") == 1


def test_every_set_that_is_known_by_name_has_a_recipe():
    assert set(RECIPES) == {"digits", "shapes", *data.SOURCES}
