"""Attention: q and k share the head size, v has its own; heads are shared, or query heads are kv-heads x group."""

from __future__ import annotations

from metaprune.graph.call import Call, Dims, rule
from metaprune.graph.rules.elementwise import broadcast
from metaprune.graph.unify import measure, resolve, split_right, unify

__all__ = []


@rule("aten.scaled_dot_product_attention")
def attention(call: Call) -> Dims:
    """softmax(q k^T scale + mask) v with q (…, L, d), k (…, S, d), v (…, S, e); the scale defaults to 1 / sqrt(d)."""
    *lead, queries, head_size = call.tensor("query")
    *key_lead, keys, key_size = call.tensor("key")
    *value_lead, values, value_size = call.tensor("value")
    unify(head_size, key_size)
    unify(keys, values)
    if call.get("enable_gqa", False) and measure(lead[-1]) != measure(key_lead[-1]):
        shared, _ = split_right(lead[-1], measure(lead[-1]) // measure(key_lead[-1]))
        unify(shared, key_lead[-1])
        unify(shared, value_lead[-1])
        batch = (
            *broadcast([tuple(lead[:-1]), tuple(key_lead[:-1]), tuple(value_lead[:-1])]),
            resolve(lead[-1]),
        )
    else:
        batch = broadcast([tuple(lead), tuple(key_lead), tuple(value_lead)])
    if (mask := call.optional("attn_mask")) is not None:
        broadcast([(*batch, queries, keys), mask])
    if call.get("is_causal", False):
        for dim in (queries, keys):
            call.fix(dim, "causal attention depends on the order of its entries")
    if call.get("scale") is None:
        call.scale = head_size
    rank = len(lead) + 2
    call.reads |= {"query": (rank - 1,), "key": (rank - 2, rank - 1), "value": (rank - 2,)}
    if mask is not None:
        call.reads["attn_mask"] = (len(mask) - 1,)
    call.macs.append((*batch, queries, keys, head_size))
    call.macs.append((*batch, queries, keys, value_size))
    return (*batch, queries, resolve(value_size))
