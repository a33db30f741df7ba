"""`CliptuneClassifier`: training and answers in the shape scikit-learn gives classifiers."""
