import pytest
import torch

from sleepgym.editing import EditError, NormalMatrix

D = 24


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def moment():
    text = random(200, D, seed=1) + 1.0
    return text.T @ text / len(text)


def dense(R, K, moment, weight, ridge, protected=None):
    """The closed form, written out: ``R K^T (lambda C + rho I + K_p K_p^T + K K^T)^-1`` with keys as columns."""
    M = weight * moment + ridge * moment.diagonal().mean() * torch.eye(D, dtype=torch.float64) + K.T @ K
    if protected is not None:
        M = M + protected.T @ protected
    return R.T @ K @ torch.linalg.inv(M)


@pytest.mark.parametrize("n", [1, 5, 2 * D])
@pytest.mark.parametrize("protected", [None, 1, 7])
def test_solve_equals_the_closed_form(moment, n, protected):
    K, R = random(n, D, seed=2), random(n, 10, seed=3)
    held = None if protected is None else random(protected, D, seed=4)
    A = NormalMatrix(moment, 3.0, 0.01).solve(K, held)
    torch.testing.assert_close(R.T @ A, dense(R, K, moment, 3.0, 0.01, held), atol=1e-8, rtol=1e-8)


def test_protecting_keys_is_writing_them_with_zero_residual(moment):
    K, held = random(4, D, seed=2), random(3, D, seed=4)
    normal = NormalMatrix(moment, 3.0, 0.01)
    torch.testing.assert_close(normal.solve(K, held), normal.solve(torch.cat([K, held]))[:4], atol=1e-10, rtol=0)


def test_protected_outputs_move_less_than_unprotected_ones(moment):
    K, held = random(4, D, seed=2), random(3, D, seed=4)
    normal = NormalMatrix(moment, 0.01, 0.001)
    leak = (held @ normal.solve(K).T).norm()
    assert (held @ normal.solve(K, held).T).norm() < 0.1 * leak


def test_order_of_keys_does_not_matter(moment):
    K, held, order = random(6, D, seed=2), random(3, D, seed=4), torch.tensor([3, 0, 5, 1, 4, 2])
    normal = NormalMatrix(moment, 3.0, 0.01)
    torch.testing.assert_close(normal.solve(K[order], held.flip(0)), normal.solve(K, held)[order], atol=1e-10, rtol=0)


def test_weightless_text_lets_every_key_reach_its_residual(moment):
    K = random(5, D, seed=2)
    A = NormalMatrix(moment, 1e-9, 1e-6).solve(K)
    torch.testing.assert_close(A @ K.T, torch.eye(5, dtype=torch.float64), atol=1e-5, rtol=0)


def test_more_weight_for_text_means_a_smaller_edit(moment):
    K = random(5, D, seed=2)
    sizes = [NormalMatrix(moment, weight, 0.01).solve(K).norm().item() for weight in (0.1, 1.0, 10.0, 100.0)]
    assert sizes == sorted(sizes, reverse=True)


def test_one_factor_serves_many_solves(moment):
    normal = NormalMatrix(moment, 3.0, 0.01)
    first = normal.solve(random(5, D, seed=2))
    normal.solve(random(9, D, seed=5), random(2, D, seed=6))
    assert torch.equal(normal.solve(random(5, D, seed=2)), first)


def test_numbers_are_dimensionless(moment):
    # Keys ten times as long: the same outputs at the keys.
    K = random(5, D, seed=2)
    one = NormalMatrix(moment, 3.0, 0.01).solve(K) @ K.T
    ten = NormalMatrix(100 * moment, 3.0, 0.01).solve(10 * K) @ (10 * K).T
    torch.testing.assert_close(one, ten, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("distance", [0.0, 1e-15, 1e-9])
def test_near_duplicate_keys_stay_finite_and_share_the_residual(moment, distance):
    K = random(1, D, seed=2).repeat(2, 1)
    K[1] += distance
    A = NormalMatrix(moment, 1e-3, 1e-3).solve(K)
    assert torch.isfinite(A).all()
    assert A.norm() < 10 * NormalMatrix(moment, 1e-3, 1e-3).solve(K[:1]).norm()


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(D, D), -torch.eye(D), torch.full((D, D), torch.nan), torch.ones(D, D)],
    ids=["zero", "negative", "NaN", "rank one without ridge"],
)
def test_matrix_that_is_not_positive_definite_is_refused(bad):
    with pytest.raises(EditError, match="expected a positive definite normal matrix"):
        NormalMatrix(bad, 1.0, 0.0)


def test_ridge_makes_a_singular_moment_usable():
    A = NormalMatrix(torch.ones(D, D), 1.0, 0.01).solve(random(3, D))
    assert torch.isfinite(A).all()


def test_solve_is_float64_whatever_the_moment_is(moment):
    assert NormalMatrix(moment.float(), 1.0, 0.01).solve(random(3, D)).dtype == torch.float64


def test_growing_key_by_key_equals_solving_at_once(moment):
    K, normal = random(9, D, seed=2), NormalMatrix(moment, 3.0, 0.01)
    Z = normal.whiten(K)
    grown = normal.empty()
    for z in Z:
        grown = grown.extended(z[None])
    assert torch.equal(normal.unwhiten(grown.rows(9)), normal.solve(K))


def test_sequential_updates_add_up_to_the_joint_solve(moment):
    """Recursive least squares: each fact makes up for what earlier ones add at its key."""
    K, R, normal = random(8, D, seed=2), random(8, 5, seed=3), NormalMatrix(moment, 3.0, 0.01)
    total = torch.zeros(5, D, dtype=torch.float64)
    for i in range(8):
        a = normal.solve(K[i : i + 1], K[:i] if i else None)
        total += (R[i] - total @ K[i])[:, None] @ a
    torch.testing.assert_close(total, R.T @ normal.solve(K), atol=1e-9, rtol=0)


def test_growing_leaves_the_smaller_system_as_it_was(moment):
    normal = NormalMatrix(moment, 3.0, 0.01)
    small = normal.empty().extended(normal.whiten(random(4, D, seed=2)))
    before = small.rows(4)
    small.extended(normal.whiten(random(3, D, seed=5)))
    assert torch.equal(small.rows(4), before)


def test_null_space_edits_are_invisible_to_keys_that_text_uses():
    # Text lives in half of the space.
    basis = torch.linalg.qr(random(D, D, seed=7))[0]
    text = random(300, D // 2, seed=1) @ basis[:, : D // 2].T
    normal = NormalMatrix(text.T @ text / len(text), 0.0, 1.0, null_space=1e-6)
    K = random(4, D, seed=2)
    A = normal.solve(K)
    assert (text @ A.T).abs().max() < 1e-10
    assert (K @ A.T).diagonal().min() > 0.1


def test_null_space_equals_the_projected_closed_form():
    """Fang et al. 2025, eq. 14: ``R K^T P (K_p K_p^T P + K K^T P + I)^-1`` with keys as columns."""
    text = random(300, D, seed=1) * torch.linspace(0.01, 3, D, dtype=torch.float64)
    C = text.T @ text / len(text)
    K, held, R = random(4, D, seed=2), random(3, D, seed=4), random(4, 5, seed=3)
    eigenvalues, vectors = torch.linalg.eigh(C)
    U = vectors[:, eigenvalues <= 0.2 * C.diagonal().mean()]
    P, eye = U @ U.T, C.diagonal().mean() * torch.eye(D, dtype=torch.float64)
    expected = R.T @ K @ P @ torch.linalg.inv(held.T @ held @ P + K.T @ K @ P + eye)
    A = NormalMatrix(C, 0.0, 1.0, null_space=0.2).solve(K, held)
    torch.testing.assert_close(R.T @ A, expected, atol=1e-9, rtol=1e-9)


def test_heavy_protected_keys_are_as_good_as_taken_out_of_the_projector(moment):
    """EvoEdit deflates AlphaEdit's projector by the span of earlier keys (arXiv:2510.13851)."""
    K, held = random(4, D, seed=2), random(3, D, seed=4)
    eigenvalues, vectors = torch.linalg.eigh(moment)
    U = vectors[:, eigenvalues <= 1.0 * moment.diagonal().mean()]
    P = U @ U.T
    Q, _ = torch.linalg.qr(P @ held.T)
    P = P - Q @ Q.T
    rho = 0.5 * moment.diagonal().mean() * torch.eye(D, dtype=torch.float64)
    deflated = K @ P @ torch.linalg.inv(K.T @ K @ P + rho)
    A = NormalMatrix(moment, 0.0, 0.5, null_space=1.0).solve(K, 1e4 * held)
    torch.testing.assert_close(A, deflated, atol=1e-6, rtol=1e-6)
    assert (A @ held.T).abs().max() < 1e-6


def test_null_space_without_room_is_refused(moment):
    with pytest.raises(EditError, match="raise null_space"):
        NormalMatrix(moment, 1.0, 1.0, null_space=1e-12)
