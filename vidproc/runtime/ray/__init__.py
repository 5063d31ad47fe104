"""Running on Ray: a Ray of our own on this machine, or a cluster that we are asked to join.

executor   the surface: `RayExecutor`
workers    one group of workers for each step, fitted to the cluster
tasks      the workers of a stateless step
actors     the workers of a stateful step: a pool
calls      what both share: units that wait, calls on their way, how calls end
blame      why a call broke off
remote     what runs in the worker processes
capacity   what steps ask for, and what nodes have
sizing     how many actors each pool may have
timing     how long the driver waits
cluster    a cluster that is found and joined
own_ray    a Ray that this process starts
jobs       job files handed to a cluster's job API
metrics    figures of a run, where Prometheus finds them
"""
