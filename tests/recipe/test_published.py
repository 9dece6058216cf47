import ast
import inspect

from reslab.recipe import published


def test_table_holds_thirteen_networks_in_the_units_it_promises():
    rows = published.CIFAR10_NETWORKS
    assert len({row.network for row in rows}) == len(rows) == 13
    for row in rows:
        assert 10_000 < row.parameters < 100_000_000
        assert row.batch_size in (64, 120, 128)
        assert row.epochs in (200, 250)
        assert 0.7 < row.test_accuracy < 1
        assert 0.5 <= row.training_minutes / 60 <= 51


def test_columns_add_up_to_the_sums_of_the_source():
    """The sums were taken over the columns of the source's own table."""
    rows = published.CIFAR10_NETWORKS
    assert round(sum(100 * row.test_accuracy for row in rows), 2) == 1207.63
    assert sum(row.parameters for row in rows) == 141_922_000
    assert sum(row.training_minutes for row in rows) == 9476
    assert sum(row.epochs for row in rows) == 8 * 200 + 5 * 250


def test_imports_nothing_of_the_package():
    tree = ast.parse(inspect.getsource(published))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in modules if name.startswith("reslab")]
