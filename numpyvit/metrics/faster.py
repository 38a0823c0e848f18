"""The same figures by faster-coco-eval (the extra `[detection]`), in C++ for sets of COCO's size."""

from .coco import COUNTS, coco_figures, summarize


def faster_figures(found: list[tuple], true: list[tuple]) -> dict[str, float | None]:
    """As coco_figures. found, true: (labels, Boxes) of each image."""
    from faster_coco_eval import COCO, COCOeval_faster

    classes = sorted({label for labels, _ in found + true for label in labels.tolist()})
    if not classes:
        return coco_figures([])
    shared = {"images": [{"id": i} for i in range(len(found))], "categories": [{"id": label} for label in classes]}
    sets = [COCO({**shared, "annotations": _annotations(images)}) for images in (true, found)]
    evaluation = COCOeval_faster(*sets, iouType="bbox")
    evaluation.params.maxDets = list(COUNTS)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M), (T, K, A, M)
    return summarize(precision[..., -1].transpose(2, 3, 0, 1), recall.transpose(1, 2, 0, 3))


def _annotations(images):
    """[{"id", "image_id", …}, …] in COCO's form, from (labels, Boxes) of each image."""
    annotations = []
    for image, (labels, boxes) in enumerate(images):
        for i, label in enumerate(labels.tolist()):
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": label}
            annotation |= {"bbox": boxes.places[i].tolist(), "area": float(boxes.areas[i])}
            if boxes.scores is not None:
                annotation["score"] = float(boxes.scores[i])
            annotation["iscrowd"] = 0 if boxes.crowd is None else int(boxes.crowd[i])
            annotations.append(annotation)
    return annotations
