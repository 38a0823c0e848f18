"""How far the answers are from the reference libraries':   python -m benchmarks.parity

Each row: a library's own random weights, saved by it, loaded here; the largest difference of the logits of two random
images in float32. Libraries that are not installed are left out.
"""

import importlib.util
import pathlib
import sys
import tempfile

import numpy as np

import numpyvit as nv

_TIMM = (
    "vit_tiny_patch16_224", "vit_small_patch32_224", "vit_base_patch16_224", "vit_base_patch32_224",
    "deit_tiny_patch16_224", "deit_small_distilled_patch16_224", "deit_base_patch16_224", "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
)  # fmt: skip


def rows(folder):
    """(origin, architecture, ours, theirs as functions of a image, image size)."""
    import torch

    if importlib.util.find_spec("torchvision"):
        # torchvision's compiled part is absent beside a CPU build; these two names let the rest of it load
        rows.library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            rows.library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.manual_seed(0)
    if importlib.util.find_spec("timm"):
        import timm

        for name in _TIMM:
            theirs = timm.create_model(name).eval()
            with torch.no_grad():
                for key, parameter in theirs.named_parameters():
                    if "gamma" in key or "token" in key:  # all but 0 initially, which would show nothing
                        parameter.normal_(std=0.3)
            torch.save(theirs.state_dict(), folder / "timm.pth")
            yield "timm", name, nv.create_model(name, pretrained=folder / "timm.pth"), theirs
    if importlib.util.find_spec("torchvision"):
        import torchvision

        for name, ours in (("vit_b_16", "vit_base_patch16_224"), ("vit_b_32", "vit_base_patch32_224")):
            theirs = getattr(torchvision.models, name)().eval()
            torch.nn.init.normal_(theirs.heads.head.weight, std=0.02)  # 0 initially, which would show nothing
            torch.save(theirs.state_dict(), folder / "torchvision.pth")
            yield "torchvision", name, nv.create_model(ours, pretrained=folder / "torchvision.pth"), theirs
    if importlib.util.find_spec("transformers"):
        import transformers

        sizes = dict(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=1000)
        for kind, name in (("ViT", "vit_tiny_patch16_224"), ("DeiT", "deit_tiny_distilled_patch16_224")):
            config = getattr(transformers, f"{kind}Config")(**sizes)
            suffix = "WithTeacher" if kind == "DeiT" else ""
            theirs = getattr(transformers, f"{kind}ForImageClassification{suffix}")(config).eval()
            theirs.save_pretrained(folder / kind)
            ours = nv.create_model(name, pretrained=folder / kind / "model.safetensors")
            yield "Hugging Face", f"{kind}, width 192", ours, lambda x, theirs=theirs: theirs(x).logits


def main():
    if not importlib.util.find_spec("torch"):
        sys.exit("PyTorch is not installed; there is nothing to compare with")
    import torch

    print("| origin | architecture | largest difference |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for origin, name, ours, theirs in rows(pathlib.Path(folder)):
            size = ours.patch_embed.img_size
            x = np.random.default_rng(0).standard_normal((2, 3, *size), dtype=np.float32)
            with torch.no_grad():
                expected = theirs(torch.from_numpy(x)).numpy()
            print(f"| {origin} | {name} | {np.abs(ours(x) - expected).max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
