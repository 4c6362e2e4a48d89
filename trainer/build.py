"""From a recipe to a sharded model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from data_loaders.batch import id_feature_names
from data_loaders.config import IdListFeature
from data_loaders.errors import InputError
from embeddings.planner import is_table, plan_tables, readable_name, shard_model
from embeddings.tables import build_sequences, build_tables, initialise_tables, pooled_names
from trainer.architectures import build_architecture
from trainer.architectures.architecture import Architecture, Sizes
from trainer.balance_config import BALANCE_STATE
from trainer.balancing import build_balancer
from trainer.balancing.fan_out import FanOut
from trainer.balancing.relation import TaskRelation
from trainer.config import Recipe
from trainer.histories import Histories, build_histories
from trainer.inputs import InputLayer
from trainer.interactions import build_interaction
from trainer.losses import TaskSet
from trainer.model import MultiTaskModel, Towers
from trainer.model_config import GatedConfig
from trainer.runtime import Runtime, rank_memory_bytes

# Rows start apart from one another, and near zero.
TABLE_INIT_STD = 0.02


def build_model(recipe: Recipe, *, group: dist.ProcessGroup | None = None) -> MultiTaskModel:
    """The whole model, its tables on the meta device, its towers drawn from `run.seed`.

    Args:
        group: the ranks, for what the tasks' gradients are balanced by.
    """
    torch.manual_seed(recipe.run.seed)
    keys, tasks = id_feature_names(recipe.data), TaskSet(recipe.data)
    input_layer = _build_input_layer(recipe, keys=keys)
    architecture = build_architecture(
        recipe.model,
        sizes=Sizes(
            input_width=input_layer.input_width,
            tasks=tasks.names,
            num_outputs=tasks.num_outputs,
            gate_width=input_layer.gate_width,
        ),
    )
    balancer = build_balancer(recipe.balance, tasks=tasks.losses, seed=recipe.run.seed)
    return MultiTaskModel(
        tables=_build_tables(recipe, keys=keys),
        sequences=build_sequences(
            recipe.unpooled_tables(),
            keys=keys,
            table_of_feature=recipe.table_of_feature(),
            owners=recipe.table_owners(),
        ),
        towers=Towers(
            input_layer=input_layer,
            architecture=architecture,
            fan_out=FanOut(balancer, group=group),
            tasks=tasks,
            relation=_build_relation(recipe, architecture=architecture),
            histories=_build_histories(recipe, keys=keys),
            l2=recipe.optimizer.tables.l2,
            rows_per_batch=recipe.data.batch_size * recipe.data.rows_per_example,
            is_bfloat16=recipe.run.precision == "bfloat16",
        ),
    )


def _build_tables(recipe: Recipe, *, keys: Sequence[str]) -> EmbeddingBagCollection | None:
    """The tables whose lookup pools, if there are any."""
    unpooled, tables = recipe.unpooled_tables(), recipe.embeddings.tables
    pooled = {name: table for name, table in tables.items() if name not in unpooled}
    if not pooled:
        return None
    return build_tables(
        pooled,
        keys=keys,
        table_of_feature=recipe.table_of_feature(),
        owners=recipe.table_owners(),
        is_weighted=recipe.data.has_id_weights,
    )


def _build_relation(recipe: Recipe, *, architecture: Architecture) -> TaskRelation | None:
    """What ties the tasks' towers to each other, if the recipe asks for it."""
    config = recipe.balance.relation
    if config is None:
        return None
    return TaskRelation(
        config, towers=architecture.task_towers(), architecture=recipe.model.architecture
    )


def _build_histories(recipe: Recipe, *, keys: Sequence[str]) -> Histories | None:
    """What makes a vector of each list that is not pooled, if the recipe has any."""
    if not recipe.model.histories:
        return None
    lists = {
        name: feature
        for name, feature in recipe.data.features.items()
        if isinstance(feature, IdListFeature)
    }
    used, tables = recipe.table_of_feature(), recipe.embeddings.tables
    names = pooled_names(keys, table_of_feature=used, owners=recipe.table_owners())
    return build_histories(
        recipe.model.histories,
        features=dict(zip(names, itertools.cycle(keys), strict=False)),
        widths=recipe.id_widths(),
        max_lengths={name: item.max_length for name, item in lists.items()},
        means=[name for name in lists if tables[used[name]].pooling == "mean"],
    )


def _build_input_layer(recipe: Recipe, *, keys: Sequence[str]) -> InputLayer:
    dense_widths, widths = recipe.data.dense_widths, recipe.id_widths()
    id_widths, owners = {key: widths[key] for key in keys}, recipe.table_owners()
    interactions = {
        owner: build_interaction(
            recipe.model, widths=list(id_widths.values()), num_dense=sum(dense_widths.values())
        )
        for owner in owners
    }
    return InputLayer(
        id_widths=id_widths,
        dense_widths=dense_widths,
        interaction=interactions.pop(None, None),
        own_interactions=list(interactions.values()),
        keys=pooled_names(keys, table_of_feature=recipe.table_of_feature(), owners=owners),
        gate_features=recipe.model.gate_features if isinstance(recipe.model, GatedConfig) else (),
    )


def plan_model(
    recipe: Recipe,
    model: MultiTaskModel,
    *,
    world_size: int,
    local_world_size: int,
    device_type: str,
    memory_bytes: int,
) -> ShardingPlan:
    """The sharding plan for a number of ranks; needs none of them."""
    return plan_tables(
        model,
        tables=recipe.tables(),
        world_size=world_size,
        local_world_size=local_world_size,
        device_type=device_type,
        memory_bytes=memory_bytes,
        batch_size=max(1, recipe.data.batch_size * recipe.data.rows_per_example // world_size),
    )


def build_sharded_model(
    recipe: Recipe, *, runtime: Runtime
) -> tuple[DistributedModelParallel, ShardingPlan]:
    """The model cut over the ranks of the process group, and the plan; the same values at every
    number of ranks.
    """
    model = build_model(recipe, group=dist.new_group())
    frozen = _freeze(model, recipe)
    memory = rank_memory_bytes(
        device_type=runtime.device_type, local_world_size=runtime.local_world_size
    )
    # every rank plans for the smallest, so that all find the same plan
    smallest = torch.tensor([memory, runtime.local_world_size], device=runtime.device)
    dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
    plan = plan_model(
        recipe,
        model,
        world_size=runtime.world_size,
        local_world_size=int(smallest[1]),
        device_type=runtime.device_type,
        memory_bytes=int(smallest[0]),
    )
    tables = recipe.optimizer.tables
    sharded = shard_model(
        model,
        plan=plan,
        device=runtime.device,
        learning_rate=tables.learning_rate,
        eps=tables.eps,
        frozen=frozen,
    )
    parameters = {name: item for name, item in sharded.state_dict().items() if is_table(name)}
    initialise_tables(parameters, seed=recipe.run.seed, std=TABLE_INIT_STD)
    return sharded, plan


def _freeze(model: MultiTaskModel, recipe: Recipe) -> list[str]:
    """Takes the gradient from the dense parameters that `init_from` freezes; returns the readable
    names of the tables that it freezes.

    Raises:
        InputError: no dense parameter is left to train.
    """
    names = {readable_name(name): item for name, item in model.named_parameters()}
    dense = {name: item for name, item in names.items() if not name.startswith("tables.")}
    for name, item in dense.items():
        item.requires_grad_(not recipe.is_frozen(name))
    ours = (item for name, item in dense.items() if not name.startswith(BALANCE_STATE))
    if not any(item.requires_grad for item in ours):
        raise InputError(
            "init_from.freeze: no dense parameter is left to train; take fewer in "
            "init_from.parameters (the towers of the tasks are towers.architecture.towers.*)"
        )
    return [name for name in names if name not in dense and recipe.is_frozen(name)]
