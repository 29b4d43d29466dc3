"""Adding gradients up over several batches where TensorFlow trains on several devices at once.

Keras leaves this to the optimizer, which decides inside of the graph whether a batch is the last of its sum. There,
TensorFlow cannot let devices meet. So two graphs are made here, for batches that are only added up and for those
after which the weights are updated, and which of them runs is decided outside.
"""

import keras
import tensorflow as tf

from sepnet.training.trainer import Trainer


class ReplicaTrainer(Trainer):
    """A `Trainer` under `tf.distribute.MirroredStrategy` whose gradients are those of several batches.

    Args:
        *arguments: those of `Trainer`.
        accumulation: batches for each update; the optimizer must not accumulate by itself.
        **keywords: those of `Trainer`.
    """

    def __init__(self, *arguments, accumulation: int, **keywords):
        super().__init__(*arguments, **keywords)
        self.accumulation = accumulation
        # Like the sums, part of the state that a run goes on with.
        self.num_added = keras.Variable(0, dtype="int32", trainable=False, name="num_added")
        # Each device adds its own; they meet when the weights are updated.
        self.sums = [
            keras.Variable(
                tf.zeros(weight.shape),
                trainable=False,
                synchronization="on_read",
                aggregation="sum",
                name=f"sum_{index}",
            )
            for index, weight in enumerate(self.trainable_weights)
        ]

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy

        def compiled(step):
            @tf.function(jit_compile=self.jit_compile)
            def run(data):
                logs = strategy.run(step, args=(data,))
                # Metrics are summed up over the devices when they are read.
                return {name: strategy.reduce("mean", value, axis=None) for name, value in logs.items()}

            return run

        add, update = compiled(self._add), compiled(self._update)

        def train(iterator):
            is_last = (int(self.num_added.numpy()) + 1) % self.accumulation == 0
            logs = (update if is_last else add)(next(iterator))
            self.num_added.assign_add(1)
            return logs

        self.train_function = train

    def _add(self, inputs):
        """Adds the gradients of a batch up."""
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss = self.compute_loss(y_pred=outputs)
            scaled = self.optimizer.scale_loss(loss)
        for total, gradient in zip(self.sums, tape.gradient(scaled, self.trainable_weights), strict=True):
            total.assign(total + gradient)
        [mean_loss] = [metric for metric in self.metrics if metric.name == "loss"]
        mean_loss.update_state(loss * self.num_replicas)
        return self.compute_metrics(inputs, None, outputs)

    def _update(self, inputs):
        """Adds the gradients of a batch up, and moves the weights by the mean of those that were added."""
        logs = self._add(inputs)
        self.optimizer.apply([total / self.accumulation for total in self.sums], self.trainable_weights)
        for total in self.sums:
            total.assign(tf.zeros(total.shape))
        return logs
