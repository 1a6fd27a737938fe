"""An explainer of one's own: element-wise Grad-CAM, in one file.

    contrex explain cat.jpg --run RUN --explainer docs/examples/elementwise_grad_cam.py:ElementwiseGradCAM
    contrex evaluate RUN --explainer "docs/examples/elementwise_grad_cam.py:ElementwiseGradCAM(power=2)"

Whether it keeps what every explainer promises, `contrex.explain.contract.check_contract` tells.
"""

from torch import Tensor, nn

from contrex.explain import ActivationExplainer


class ElementwiseGradCAM(ActivationExplainer):
    """`sum_c relu(A_c dS/dA_c)^power`, cell by cell.

    With `power` 1 it is "GradCAMElementWise" of pytorch-grad-cam: what speaks against the class in one channel cancels
    nothing in another. It is not linear in the score, so a contrast is the difference of the classes' maps.
    """

    name = "elementwise_grad_cam"
    is_linear = False

    def __init__(self, model: nn.Module, layer: str | nn.Module | None = None, *, power: int = 1) -> None:
        super().__init__(model, layer)
        self.power = power

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        return (activation * gradient).relu().pow(self.power).sum(1)
