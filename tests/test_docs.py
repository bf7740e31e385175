"""The documentation holds its word: commands, options, keys, columns, exit codes, links and snippets exist."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from pydantic import BaseModel

from benchmarks import memory_tables
from jobs.cli import commands, image_commands, manifest_commands
from jobs.config.batch_config import BatchConfig, parse_configs
from jobs.config.composition import explain, known_overrides
from jobs.config.faults import section_model
from jobs.config.interpolations import check_interpolations
from jobs.config.sections import Sampling
from jobs.config.trust import check_trust
from jobs.config.values import MAX_GRID
from jobs.manifest import journal, ratings, sealing
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.schema import arrow_schema, columns, meanings, searched_schema
from jobs.planning import memory_levels
from jobs.planning.adapter_axes import ADAPTER_KEYS
from jobs.planning.grid import KEYS, Grid
from jobs.planning.memory_and_batch_size import TRIED_SHARE
from jobs.prompts.lines import ALIASES, _Line
from jobs.prompts.open_prompts import open_prompts
from jobs.running import loop, main
from pipeline.adapters.identify import _SINGLE_CONTROLNET, _SINGLE_IP_ADAPTER
from pipeline.adapters.specs import ControlNetSpec, EmbeddingSpec, InitSpec, IpAdapterSpec, LoraSpec
from pipeline.adapters.textual_inversion import TOKENIZED
from pipeline.errors import ConfigError
from pipeline.hubs.privacy import FORMS
from pipeline.loading.precision import OVERFLOWS_IN_FLOAT16
from pipeline.loading.speed_options import FULL_BREAK_EVEN, REGIONAL_BREAK_EVEN, STEP_CACHES
from pipeline.memory.planning.choose_techniques import CLASSES
from pipeline.memory.planning.techniques import ANY_DEVICE, TECHNIQUES
from pipeline.memory.planning.timings import GAIN, KEPT, TRIAL_BATCHES
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.record import Record
from pipeline.schedulers import SAMPLERS
from pipeline.selection.ollama.privacy import REQUESTS
from pipeline.system.units import size_text
from pipeline.weights.families import FAMILIES
from pipeline.weights.headers.base import PICKLES

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("wildcards", "local"))
OPTIONS = {(group, path.stem) for group in GROUPS for path in (CONF / group).glob("*.yaml")}
LOOKING = ("--cfg", "--info", "--help", "--resolve", "--package")
"""Options of Hydra that show a configuration and run nothing."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its rank."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading!r}"
    return found[2]


def first_cells(text: str) -> list[str]:
    """What stands in the first column of the tables of a text; heads and rules left out."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    heads = {index - 1 for index, line in enumerate(rows) if line.startswith("| ---")}
    cells = [re.split(r"(?<!\\)\|", line)[1].strip() for line in rows]
    return [cell for index, cell in enumerate(cells) if index not in heads and not cell.startswith("---")]


def rows_of(text: str) -> list[list[str]]:
    """The tables of a text as rows of cells, backticks left out; heads and rules too."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {index - 1 for index, line in enumerate(lines) if line.startswith("| ---")}
    rows = [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for index, row in enumerate(rows) if index not in heads and not row[0].startswith("---")]


def code_lines(path: Path) -> Iterator[str]:
    """Lines of indented and of fenced code, without those of ```console, which show what was printed."""
    language: str | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif (language is None and line.startswith("    ")) or (language is not None and language != "console"):
            yield line.strip()


def documented_commands(program: str) -> list[tuple[str, str]]:
    """(page, command) of every command line in code and in inline code, each once."""
    found: dict[str, str] = {}
    for page in PAGES:
        inline = re.findall(rf"`({re.escape(program)} [^`]+)`", page.read_text(encoding="utf-8"))
        for line in (*code_lines(page), *inline):
            if line.startswith(f"{program} ") and "..." not in line:
                found.setdefault(line, page.relative_to(ROOT).as_posix())
    return [(page, line) for line, page in found.items()]


def commands_in_configuration_files() -> list[tuple[str, str]]:
    paths = [*CONF.rglob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")]
    return [
        (path.relative_to(ROOT).as_posix(), command.strip())
        for path in sorted(paths)
        for command in re.findall(r"#.*?(python run\.py.*)", path.read_text(encoding="utf-8"))
    ]


def commands_in_help() -> list[tuple[str, str]]:
    """The examples of `run.py --help`; what follows the last `key=value` is a description."""
    help_text = text_of("conf/config.yaml").replace("${program:}", "python run.py")
    lines = re.findall(r"^ +(python run\.py .*)", help_text, re.MULTILINE)
    found = re.compile(r'python run\.py((?: +(?:-m|[\w.]+=(?:"[^"]*"|\S+)))*)')
    return [("conf/config.yaml", match[0]) for line in lines if (match := found.match(line))]


@cache
def composed(folder: str | None, overrides: tuple[str, ...]) -> dict[str, Any]:
    """A configuration as `run.py` would hand it on."""
    OmegaConf.register_new_resolver("scratch", lambda: "scratch", replace=True)
    OmegaConf.register_new_resolver("own_options", list, replace=True)
    search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", [*overrides, *search])
    check_interpolations(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def configurations(command: str) -> list[dict[str, Any]]:
    """Everything that a documented command composes; raises what `run.py` would report."""
    words = shlex.split(command.partition(" | ")[0])[2:]
    sweep = "-m" in words
    folder = str(ROOT / words[words.index("--config-dir") + 1]) if "--config-dir" in words else None
    if folder:
        check_trust([CONF, Path(folder)], CONF / "config.yaml")
    others = [word for word in words if word.startswith("-") or "=" not in word]
    # A profile is the reader's own, and what it says is not known here.
    readers_own = [word for word in words if word.startswith("profile=")]
    overrides = known_overrides([word for word in words if word not in (*others, *readers_own)])
    known = {"-m", "--config-dir", *LOOKING, *((folder and [words[words.index("--config-dir") + 1]]) or [])}
    assert set(others) <= known | {"job", "defaults", "searchpath", "sampling"}, f"{command}: what is {others}?"
    axes = [values_of(override) if sweep else [override] for override in overrides]
    try:
        return [composed(folder, combination) for combination in itertools.product(*axes)]
    except HydraException as error:
        raise ConfigError(explain(str(error))) from error


def values_of(override: str) -> list[str]:
    """`a=1,2` as `a=1` and `a=2`; `group=glob(*)` as all of the group."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    if "glob(" in override:
        return [f"{parsed.key_or_group}={name}" for group, name in sorted(OPTIONS) if group == parsed.key_or_group]
    prefix = "++" if parsed.is_force_add() else ""
    return [f"{prefix}{parsed.get_key_element().lstrip('+')}={value}" for value in parsed.sweep_string_iterator()]


BUILT = "outputs/tiny/conf"
"""The configuration folder that examples/build_tiny_models.py writes."""

COMMANDS = [
    *((page, command) for page, command in documented_commands("python run.py") if BUILT not in command),
    *documented_commands("darkroom run"),
    *commands_in_configuration_files(),
    *commands_in_help(),
]


def test_there_are_commands_to_check() -> None:
    assert len(documented_commands("python run.py")) > 30 and len(documented_commands("darkroom")) > 15
    assert len(commands_in_configuration_files()) > 15 and len(commands_in_help()) >= 4


@pytest.mark.slow
def test_every_documented_command_composes_and_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "data")
    faults = []
    for page, command in COMMANDS:
        try:
            for config in parse_configs(configurations(command)):
                Grid(config.grid)  # with glob(...), the files in it are there
                naming = config.naming.model_dump()
                NamingSettings(**{**naming, "components": tuple(naming["components"])})
                MetadataSettings(**config.metadata.model_dump())
                file = config.prompts.file
                assert file is None or (CONF / "prompts" / file).is_file() or (ROOT / file).is_file() or "my_" in file
        except (ConfigError, AssertionError) as error:
            faults.append(f"{page}: {command}\n    {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_commands_on_the_models_of_the_example_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {command for _, command in documented_commands("python run.py") if BUILT in command}
    assert commands
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    import build_tiny_models

    build_tiny_models.main(Path("outputs/tiny"))
    for command in commands:
        configs = parse_configs(configurations(command.replace(BUILT, str(tmp_path / BUILT))))
        assert [config.model.name for config in configs] == ["tiny_sd15", "tiny_sdxl", "tiny_flux"]
        for config in configs:
            loras = [lora for lists in Grid(config.grid).values("adapters.loras") for lora in lists]
            assert loras and all(Path(lora["source"]).is_file() for lora in loras)
    for name in re.findall(r"outputs/tiny/[\w./]+", " ".join(page.read_text() for page in PAGES)):
        assert Path(name.rstrip(".")).exists(), name


def test_faults_are_shown_as_they_are_printed() -> None:
    shown = re.findall(
        r"^\$ (python run\.py .*)\n((?:(?!\$|```).*\n)+)", text_of("docs/configuration.md"), re.MULTILINE
    )
    assert shown
    for command, output in shown:
        with pytest.raises(ConfigError) as error:
            parse_configs(configurations(command))
        expected = [line for line in output.splitlines() if line != "..."]
        assert set(expected) <= set(str(error.value).splitlines()), command


def yaml_blocks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Indented blocks of the prompt and configuration pages that are option files."""
    import yaml

    for name in ("docs/prompts.md", "docs/configuration.md", "docs/adapters.md"):
        for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text_of(name), re.MULTILINE):
            text = re.sub(r"^    ", "", block, flags=re.MULTILINE).strip()
            if re.match(r"(?:# @package|[a-z_]+:)", text):
                yield name, yaml.safe_load(text)


def test_yaml_in_the_documentation_is_valid() -> None:
    blocks = list(yaml_blocks())
    assert len(blocks) >= 8
    for _, document in blocks:
        document.pop("defaults", None)
        if "glob(/pictures" in str(document):
            continue  # of files that are not here
        if not document.keys().isdisjoint(("lines", "characters")):
            document = {"prompts": {"lines": None, **document}}
        base = composed(None, ())
        for key, value in document.items():
            base = {**base, key: {**base[key], **value} if isinstance(base.get(key), dict) else value}
        (config,) = parse_configs([base])
        Grid(config.grid)
        if config.prompts.characters:
            assert len(open_prompts(config.prompts)) == config.prompts.characters.count


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = section_model(field.annotation)
        if inner is not None and prefix + name != "model.sampling":
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_key_is_documented_and_no_other() -> None:
    page = text_of("docs/configuration.md")
    keys_only = page[page.index("## All keys") : page.index("## The command line")]
    documented = [
        match[1] for cell in first_cells(keys_only) if (match := re.fullmatch(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)*)`", cell))
    ]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(keys_of(BatchConfig))


def shown_default(value: object) -> str:
    """A default as the tables write it; a single seed stands for its list."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case BaseModel():
            return "empty" if not value.model_dump(exclude_none=True) else "given"
        case list():
            return str(value[0]) if value else "empty"
        case dict():
            return str(value) if value else "empty"
        case _:
            return str(value) or "empty"


def test_documented_defaults_are_those_of_the_code() -> None:
    page = text_of("docs/configuration.md")
    for line in re.findall(r"^\| `[a-z0-9_.]+` \|.*", page[page.index("## All keys") :], re.MULTILINE):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        key, default = cells[0].strip("`"), cells[2].strip("`")
        model: type[BaseModel] = BatchConfig
        *parents, last = key.split(".")
        for parent in parents:
            model = section_model(model.model_fields[parent].annotation) or model
        field = model.model_fields[last]
        if key != "naming.components":  # given by the option file, which the table says
            value = "required" if field.is_required() else field.get_default(call_default_factory=True)
            assert default == shown_default(value), key


def test_every_option_is_documented_and_no_other() -> None:
    group = ""
    documented = set()
    for line in section("docs/configuration.md", "Groups and options").splitlines():
        match = re.match(r"\| (?:`(\w+)`)? ?\| `(\w+)` \|", line)
        if match:
            group = match[1] or group
            documented.add((group, match[2]))
        elif match := re.match(r"\| `(\w+)` \|", line):
            group = match[1]
    assert documented == OPTIONS


def test_every_scheduler_is_documented_with_its_class() -> None:
    documented = {}
    for row in rows_of(section("docs/configuration.md", "sampling")):
        if row[1].endswith("Scheduler"):
            spacings = ("Karras", "Exponential", "Beta") if row[2] == "yes" else ()
            documented |= dict.fromkeys((row[0], *(f"{row[0]} {spacing}" for spacing in spacings)), row[1])
    assert documented == {name: sampler.class_name for name, sampler in SAMPLERS.items()}


def test_every_profile_is_documented_with_its_settings() -> None:
    import yaml

    documented = {row[0]: row[1:] for row in rows_of(section("docs/models.md", "Profiles"))}
    written = {}
    for path in (CONF / "model").glob("*.yaml"):
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        if profile["source"] in ("???", "auto"):
            continue
        own = profile["sampling"]
        size = f"{own.get('width', 64)} x {own.get('height', 64)}"
        guidance = f"{own['guidance_scale']:g}"
        written[path.stem] = [profile.get("family", ""), str(own["steps"]), guidance, size, profile["licence"]]
    assert documented == written
    distilled = {path.stem for path in (CONF / "model").glob("*.yaml") if "distilled: true" in path.read_text()}
    listed = section("docs/models.md", "Guidance").partition("| distilled |")[2].partition("\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == distilled


def test_every_family_is_documented_with_its_sizes() -> None:
    documented = {row[0]: row[2:] for row in rows_of(section("docs/models.md", "Families"))}
    sizes = {}
    for family in FAMILIES.values():
        encoders = sum(count for name, count in family.parameters.items() if name.startswith("text_encoder"))
        parts = (family.parameters[family.denoiser], encoders, family.parameters["vae"])
        billions = [f"{part / 1e9:.2f}" for part in parts]
        sizes[family.name] = [*billions, size_text(sum(parts) * 2), str(family.size_multiple)]
    assert documented == sizes
    options = section("docs/configuration.md", "model").partition("`model.family`")[2].partition("\n")[0]
    assert set(re.findall(r"`(\w+)`", options)) == set(FAMILIES)


@pytest.mark.slow  # imports every pipeline
def test_what_there_is_for_a_family_is_what_the_code_has() -> None:
    documented = {row[0]: row[1:] for row in rows_of(section("docs/adapters.md", "What there is for which family"))}
    assert set(documented) == set(FAMILIES)
    import diffusers

    for name, family in FAMILIES.items():
        lora, inversion, img2img, controlnet, both, ip_adapter = documented[name]
        one_net, one_adapter = name in _SINGLE_CONTROLNET, name in _SINGLE_IP_ADAPTER
        assert bool(lora) == hasattr(getattr(diffusers, family.pipeline_class), "load_lora_weights"), name
        assert bool(inversion) == (name in TOKENIZED), name
        assert bool(img2img) == bool(family.img2img), name
        assert controlnet == ("" if not family.controlnet else "one" if one_net else "several"), name
        assert bool(both) == bool(family.controlnet_img2img), name
        assert ip_adapter == ("" if not family.ip_adapter else "one" if one_adapter else "several"), name


@pytest.mark.parametrize(
    ("heading", "spec"),
    [
        ("LoRA", LoraSpec),
        ("ControlNet", ControlNetSpec),
        ("IP-Adapter", IpAdapterSpec),
        ("Textual inversion", EmbeddingSpec),
    ],
)
def test_keys_of_adapters_are_documented(heading: str, spec: type[LoraSpec]) -> None:
    names = [field.name for field in fields(spec)]
    keys = {key for cell in first_cells(section("docs/adapters.md", heading)) for key in re.findall(r"`(\w+)`", cell)}
    assert keys == set(names)
    row = next(line for line in text_of("docs/configuration.md").splitlines() if "{" + ", ".join(names) in line)
    assert row.startswith("| `adapters.")


def test_the_tables_of_memory_are_what_their_script_prints() -> None:
    assert "\n".join(memory_tables.tables()).strip() in section("docs/memory.md", "Six models on four cards")


def test_every_technique_is_documented_as_it_is() -> None:
    documented = {row[0]: row[2:] for row in rows_of(section("docs/memory.md", "Techniques"))}
    where = {ANY_DEVICE: "all", ("cuda",): "NVIDIA", ("cuda", "cpu"): "NVIDIA, CPU"}
    assert list(documented) == list(TECHNIQUES)
    for name, technique in TECHNIQUES.items():
        effect, cost, devices, needs = documented[name]
        assert effect == ("by dtype" if name == "half_precision" else "lossy" if technique.lossy else "exact"), name
        assert cost == str(technique.cost) and devices == where[technique.devices], name
        assert needs == (technique.needs[1] if technique.needs else "a folder" if name == "tiny_vae" else ""), name
    keys = rows_of(section("docs/configuration.md", "memory"))
    lossy = {row[0].rpartition(".")[2] for row in keys if row[3].startswith("lossy")}
    assert lossy == {name for name, technique in TECHNIQUES.items() if technique.lossy}


def test_levels_are_documented_as_their_files_have_them() -> None:
    documented = {row[0]: row[1:] for row in rows_of(section("docs/memory.md", "Levels"))}
    written = {}
    for name, level in memory_levels.levels().items():
        on = ", ".join(f"`{name}`" for name, value in level["techniques"].items() if value is True).strip("`")
        card = f"{CLASSES[name] // 2**30} GB" if name in CLASSES else "what is free"
        written[name] = [card, on, f"{level['max_batch_pixels'] // 512**2} x 512 x 512 pixels"]
    assert documented == written


def test_facts_about_weights_and_speed_are_those_of_the_code() -> None:
    assert all(f"`{suffix}`" in section("docs/models.md", "What is refused") for suffix in PICKLES)
    spoken = {"T5EncoderModel": "T5", "UMT5EncoderModel": "UMT5", "Gemma2Model": "Gemma 2"}
    precision = section("docs/models.md", "Precision")
    assert all(spoken.get(name, name) in precision for name in OVERFLOWS_IN_FLOAT16)
    speed = rows_of(section("docs/memory.md", "Speed"))
    assert {row[0]: set(re.findall(r"\w+", row[1])) for row in speed if row[0] in STEP_CACHES} == STEP_CACHES
    compiled = next(row[1] for row in speed if row[0] == "engine.compile")
    assert f"{REGIONAL_BREAK_EVEN} for models of repeated blocks, {FULL_BREAK_EVEN} for others" in compiled
    batches = " ".join(section("docs/memory.md", "Batch sizes").split())
    assert f"beats by more than {GAIN:.0%}".replace("%", " %") in batches
    assert f"also at least {2 * FULL_BREAK_EVEN} pictures" in batches
    assert (KEPT, TRIAL_BATCHES, TRIED_SHARE) == (5, 3, 4), "the last five, three batches, a quarter"
    init = rows_of(section("docs/adapters.md", "Image-to-image"))
    assert {row[0] for row in init} == {f"init.{key}" for key in InitSpec.model_fields}


def test_every_part_of_the_record_is_documented() -> None:
    cells = first_cells(section("docs/metadata-and-naming.md", "What an image carries").partition("The record is")[0])
    keys = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert keys == {field.alias or name for name, field in Record.model_fields.items()}


def test_prompt_line_and_grid_keys_are_documented() -> None:
    cells = first_cells(section("docs/prompts.md", "Lines"))
    keys = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert keys == {*_Line.model_fields, *ALIASES}
    grid = section("docs/prompts.md", "Grid")
    listed = set(re.findall(r"`([\w.]+)`", grid[grid.index("The keys that a grid may vary") :].partition(". ")[0]))
    adapters = {key for key in ADAPTER_KEYS if ".0." not in key}
    assert listed >= {*KEYS, *adapters}


def test_columns_are_documented_with_their_types() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| (.*) \|$", section("docs/manifest-and-search.md", "Columns"), re.MULTILINE
    )
    types = [(field.name, str(field.type).replace("element: ", "item: ")) for field in searched_schema()]
    assert [(name, kind.strip()) for name, kind, _ in rows] == types
    told = {name: re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meaning) for name, _, meaning in rows}
    assert told == meanings(), "as `darkroom search --list-columns` prints them"


def test_columns_of_ratings_are_documented_with_their_types() -> None:
    documented = {row[0]: tuple(row[1:]) for row in rows_of(section("docs/manifest-and-search.md", "Ratings"))}
    told = {name: column.meaning.replace("`", "") for name, column in columns(RatingEvent).items()}
    types = {field.name: str(field.type).replace("element: ", "item: ") for field in arrow_schema(RatingEvent)}
    assert {name: (kind, meaning.replace("`", "")) for name, (kind, meaning) in documented.items()} == {
        name: (types[name], told[name]) for name in told
    }


WITH_A_FILE = ("show", "reproduce", "inspect", "pick", "reject", "tag", "compare")
"""Commands that take a file."""


def click_command() -> Any:
    return typer.main.get_command(commands.app)


@pytest.mark.parametrize(("page", "line"), documented_commands("darkroom"))
def test_every_darkroom_command_parses(page: str, line: str) -> None:
    words = shlex.split(line.partition(" | ")[0])[1:]
    command = click_command()
    if words[0].startswith("-"):
        assert words[0] in {"--help", *(name for option in command.params for name in option.opts)}, f"{page}: {line}"
        words = words[1:]
    if not words or words[0] == "COMMAND":
        return
    sub = command.commands.get(words[0])
    assert sub is not None, f"{page}: {line}"
    if words[0] in ("models", "profile"):
        if len(words) == 1:
            return
        words = words[1:]
        sub = sub.commands.get(words[0])
        assert sub is not None, f"{page}: {line}"
    if "--help" not in words and not (len(words) == 1 and words[0] in WITH_A_FILE):
        sub.make_context(words[0], _with_image(words))


def _with_image(words: Sequence[str]) -> list[str]:
    """`darkroom reproduce --check` in a sentence leaves the file to the reader."""
    arguments = list(words[1:])
    if words[0] in WITH_A_FILE and all(word.startswith("-") for word in arguments):
        arguments.append("picture.png")
    return arguments


def test_every_darkroom_option_is_documented() -> None:
    table = text_of("docs/manifest-and-search.md").partition("## Search")[0]
    documented = {
        match[1]: set(re.findall(r"`(--[\w-]+)`", match[2]))
        for match in re.finditer(r"^\| `darkroom ([\w-]+)` \|[^|]*\|(.*)\|$", table, re.MULTILINE)
    }
    assert documented == options_of(click_command())


def test_every_option_of_darkroom_models_is_documented() -> None:
    documented = {
        match[1]: set(re.findall(r"`(--[\w-]+)`", match[2]))
        for match in re.finditer(
            r"^\| `darkroom models (\w+)[^`]*` \|[^|]*\|(.*)\|$",
            section("docs/models-and-hubs.md", "Commands"),
            re.MULTILINE,
        )
    }
    assert documented == options_of(click_command().commands["models"])


def test_every_request_is_documented_with_what_it_tells() -> None:
    documented = [row[2:] for row in rows_of(section("docs/models-and-hubs.md", "Privacy"))]
    assert documented == [[form.path, form.tells] for form in FORMS]
    documented = [*rows_of(section("docs/models-and-hubs.md", "Ollama"))]
    assert documented == [[one.method, one.path, one.tells] for one in REQUESTS]


def options_of(group: Any) -> dict[str, set[str]]:
    return {
        name: {option for parameter in sub.params for option in parameter.opts if option.startswith("--")} - {"--help"}
        for name, sub in group.commands.items()
    }


def test_exit_codes_are_those_of_the_code() -> None:
    table = section("docs/resuming-and-failures.md", "Exit codes of run.py")
    run_py, _, darkroom = table.partition("The `darkroom` command")
    codes = {value for name, value in vars(main).items() if name.startswith("EXIT_")}
    assert {int(cell) for cell in first_cells(run_py)} == codes == {0, 2, 3, 4}
    from jobs.archive.reproduce import EXIT_DIFFERENT, EXIT_EQUAL

    own = {EXIT_EQUAL, EXIT_DIFFERENT, main.EXIT_INPUT, manifest_commands.EXIT_FAULTS_FOUND, main.EXIT_STOPPED}
    assert {int(cell) for cell in first_cells(darkroom)} == own


def test_kinds_of_failure_are_those_of_the_code() -> None:
    from pipeline.errors import JobFailure
    from pipeline.metadata import building, saving  # noqa: F401  (they add to the tree)

    def kinds(error: type[JobFailure]) -> Iterator[str]:
        yield error.kind
        for below in error.__subclasses__():
            yield from kinds(below)

    documented = {cell.strip("`") for cell in first_cells(section("docs/resuming-and-failures.md", "Kinds of failure"))}
    assert documented == {*kinds(JobFailure), "model", "process_died"}


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    numerals = {2: "twice", 3: "three", 5: "five", 10: "ten"}
    pages = ("docs/resuming-and-failures.md", "docs/manifest-and-search.md")
    failures, manifest = (" ".join(text_of(page).split()) for page in pages)
    assert f"lost {numerals[sealing.MAX_ATTEMPTS]} attempts is set aside" in failures
    assert f"- images of {numerals[loop.MAX_FAILURES_ALIKE]} different prompts or models fail alike" in failures
    assert f"- {numerals[loop.MAX_DEATHS]} workers in a row" in failures
    assert f"a device is lost {numerals[loop.MAX_DEVICE_LOSSES]} in a row" in failures
    assert f"within {loop.STOP_WITHIN_S:.0f} seconds" in failures
    assert f"after {journal.SEAL_ROWS:,} rows" in manifest and journal.SEAL_AFTER_S == 600
    assert f"after {ratings.SEAL_EVENTS:,} events" in manifest
    assert f"stops at {image_commands.TABLE_LIMIT} rows" in manifest
    assert f"{MAX_GRID:,} jobs" in text_of("docs/prompts.md")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_links_and_images_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            path = (page.parent / file).resolve() if file else page
            if not path.exists():
                broken.append(f"{page.name}: {target}")
            elif anchor and path.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                if anchor not in map(slug, headings):
                    broken.append(f"{page.name}: {target} (no such heading)")
    assert not broken, "\n".join(broken)


def test_make_verbs_exist() -> None:
    verbs = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    mentioned = {
        verb for page in PAGES for verb in re.findall(r"(?:`|^    )make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert mentioned <= verbs
    assert {
        cell.strip("`").removeprefix("make ") for cell in first_cells(section("CONTRIBUTING.md", "Set-up"))
    } == verbs


OF_A_MACHINE = re.compile(
    rf"(?<![\w.~])/(?:home|root|work|tmp|Users|mnt|opt|srv|var|usr|etc)/|{re.escape(str(ROOT))}|{re.escape(str(Path.home()))}/"
)
"""Absolute paths of real machines; `/data`, `/models` and `/path/to` are plain examples."""


def test_documentation_is_about_the_product_alone() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not OF_A_MACHINE.search(text), page.name
        assert not re.search(r"localhost|TODO|FIXME|@@", text), page.name
        assert all(ord(character) < 0x2190 for character in text), f"{page.name} has a pictogram"


def python_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks("README.md")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert len(list(tmp_path.glob("outputs/*_a-red-house-in-hills-at-sunset_*.png"))) == 1


def test_python_on_the_manifest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    from jobs.manifest.parts import table_from_rows

    row = dict.fromkeys(arrow_schema().names)
    row |= {"status": "done", "model": "demo", "steps": 20, "seconds": 1.5, "prompt": "sea at dawn"}
    (tmp_path / "outputs/manifest/parts").mkdir(parents=True)
    pq.write_table(table_from_rows([row]), tmp_path / "outputs/manifest/parts/one.parquet")  # type: ignore[list-item]
    monkeypatch.chdir(tmp_path)
    for block in python_blocks("docs/manifest-and-search.md"):
        exec(compile(block, "manifest-and-search.md", "exec"), {})
    assert "1.5" in capsys.readouterr().out


def test_sampling_keys_of_the_page_on_configuration() -> None:
    """The precedence is told for every sampling key."""
    text = section("docs/configuration.md", "What is set where")
    assert all(f"`{key}`" in text for key in Sampling.model_fields)
