"""Figures of labels and scores by scikit-learn and numpy, the cases full of ties. Usage: record_metrics.py > metrics.jsonl"""
import json, random
import numpy as np
from sklearn.metrics import (average_precision_score, brier_score_loss, confusion_matrix,
                             f1_score, precision_recall_curve, precision_score, recall_score, roc_auc_score)

# Lines, distinct scores (0: as they come): from nearly all ties to none.
for lines, levels in ((25, 3), (40, 7), (60, 20), (200, 0)):
    r = random.Random(lines)
    y = [int(r.random() < 0.4) for _ in range(lines)]
    s = [min(1, 0.8 * r.random() + 0.2 * label) for label in y]
    s = [round(round(x * levels) / levels if levels else x, 4) for x in s]
    flagged = [int(x >= 0.5) for x in s]
    tn, fp, fn, tp = confusion_matrix(y, flagged).ravel().tolist()
    precision, recall, _ = precision_recall_curve(y, s)
    with np.errstate(invalid="ignore"):
        best = np.nanmax(2 * precision * recall / (precision + recall))
    print(json.dumps({
        "labels": y, "scores": s, "rocAuc": roc_auc_score(y, s), "averagePrecision": average_precision_score(y, s),
        "brierScore": brier_score_loss(y, s), "bestF1": float(best), "quantiles": np.quantile(s, (0.025, 0.5, 0.975)).tolist(),
        "atHalf": {"confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn}, "precision": precision_score(y, flagged),
                   "recall": recall_score(y, flagged), "f1": f1_score(y, flagged)}}))
