"""Recurrent networks: PyTorch's layers and cells, and those written by hand."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tests.zoo.entry import Entry, Example, floats, tokens


class LastStep(nn.Module):
    """Features, a recurrent layer, and a classifier on the last step of its output."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(7, 8)
        self.rnn = layer
        self.hidden = nn.Linear(width, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(F.relu(self.embed(x)))
        return self.last(F.relu(self.hidden(out[:, -1, :])))


class TimeFirst(nn.Module):
    """A layer that wants time first, and a score for each step."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(7, 8, 3, padding=1)
        self.rnn = layer
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).permute(2, 0, 1)
        out, _ = self.rnn(x)
        return self.last(out).permute(1, 0, 2)


class TextClassifier(nn.Module):
    """The tutorial's sentiment model: embedding, stacked bidirectional LSTM, both last hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 10, padding_idx=0)
        self.rnn = nn.LSTM(10, 9, num_layers=2, bidirectional=True, dropout=0.3)
        self.fc = nn.Linear(9 * 2, 2)
        self.dropout = nn.Dropout(0.3)

    def forward(self, text: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(text.t()))
        _, (hidden, _) = self.rnn(embedded)
        hidden = self.dropout(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1))
        return self.fc(hidden)


class StateClassifier(nn.Module):
    """A GRU whose last hidden state is classified: h_n[-1]."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size=7, hidden_size=16, num_layers=layers, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, h_n = self.gru(x)
        return self.fc(h_n[-1])


class ZeroState(nn.Module):
    """The initial states are zeros that the code makes, as tutorials do, from sizes that the module keeps."""

    def __init__(self, input_size: int = 7, hidden_size: int = 14, num_layers: int = 2) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, 3)

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        c0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


class Captioner(nn.Module):
    """Show and tell: the features of a picture are the first states of an LSTM over words."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.init_h, self.init_c = nn.Linear(8, 16), nn.Linear(8, 16)
        self.embed = nn.Embedding(12, 10)
        self.decoder = nn.LSTM(10, 16, batch_first=True)
        self.fc = nn.Linear(16, 12)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        features = self.encoder(image)
        state = (torch.tanh(self.init_h(features)).unsqueeze(0), self.init_c(features).unsqueeze(0))
        out, _ = self.decoder(self.embed(words), state)
        return self.fc(out)


def picture_and_words(generator: Generator) -> Example:
    (image,), _ = floats((2, 3, 8, 8))(generator)
    (words,), _ = tokens(5, 12)(generator)
    return (image, words), {}


class RecurrentSeq2Seq(nn.Module):
    """Translation: a GRU reads, its state starts a second GRU, which attends to what the first gave out (Luong)."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 6), nn.Embedding(22, 8)
        self.encoder = nn.GRU(6, 10, num_layers=2, batch_first=True)
        self.decoder = nn.GRU(8, 10, num_layers=2, batch_first=True)
        self.attention = nn.Linear(10, 10, bias=False)
        self.concat = nn.Linear(20, 9)
        self.out = nn.Linear(9, 22)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(source))
        out, _ = self.decoder(self.target(target), state)
        weights = F.softmax(torch.bmm(self.attention(out), memory.transpose(1, 2)), dim=-1)
        context = torch.bmm(weights, memory)
        return self.out(torch.tanh(self.concat(torch.cat((out, context), dim=2))))


def two_sentences(generator: Generator) -> Example:
    (source,), _ = tokens(6, 20)(generator)
    (target,), _ = tokens(5, 22)(generator)
    return (source, target), {}


class WordLanguageModel(nn.Module):
    """PyTorch's word language model: the decoder is tied to the embedding, so units and embedding are one."""

    def __init__(self, ntoken: int = 20, nhid: int = 12, nlayers: int = 2) -> None:
        super().__init__()
        self.ntoken, self.nhid, self.nlayers = ntoken, nhid, nlayers
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(ntoken, nhid)
        self.rnn = nn.LSTM(nhid, nhid, nlayers, dropout=0.2)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight

    def init_hidden(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros on the device of the weights."""
        weight = next(self.parameters())
        return (
            weight.new_zeros(self.nlayers, batch, self.nhid),
            weight.new_zeros(self.nlayers, batch, self.nhid),
        )

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.drop(self.encoder(ids.t()))
        output, _ = self.rnn(embedded, self.init_hidden(ids.size(0)))
        decoded = self.decoder(self.drop(output))
        return F.log_softmax(decoded.transpose(0, 1), dim=-1)


class Crnn(nn.Module):
    """Text recognition: convolutions squeeze the height away; two bidirectional LSTMs read the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(True), nn.MaxPool2d((4, 1)),
        )  # fmt: skip
        self.rnn1 = nn.LSTM(10, 7, bidirectional=True)
        self.linear1 = nn.Linear(14, 9)
        self.rnn2 = nn.LSTM(9, 8, bidirectional=True)
        self.linear2 = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.cnn(x).squeeze(2).permute(2, 0, 1)
        recurrent, _ = self.rnn1(conv)
        t, b, h = recurrent.size()
        x = self.linear1(recurrent.view(t * b, h)).view(t, b, -1)
        recurrent, _ = self.rnn2(x)
        t, b, h = recurrent.size()
        return self.linear2(recurrent.contiguous().view(t * b, h)).view(t, b, -1).transpose(0, 1)


class Cells(nn.Module):
    """LSTM and GRU cells, stepped by a loop, from zeros."""

    def __init__(self, features: int = 7, hidden: int = 14) -> None:
        super().__init__()
        self.hidden = hidden
        self.lstm = nn.LSTMCell(features, hidden)
        self.gru = nn.GRUCell(hidden, 10)
        self.linear = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.size(0), self.hidden)
        c = x.new_zeros(x.size(0), self.hidden)
        g = None
        outputs = []
        for step in x.unbind(1):
            h, c = self.lstm(step, (h, c))
            g = self.gru(h, g)
            outputs.append(self.linear(g))
        return torch.stack(outputs, dim=1)


class CharRnn(nn.Module):
    """The names tutorial: an input and the hidden state are concatenated; all by hand."""

    def __init__(self, letters: int = 7, hidden_size: int = 24) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(letters + hidden_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[0], self.hidden_size, dtype=x.dtype, device=x.device)
        for i in range(x.shape[1]):
            hidden = torch.tanh(self.i2h(torch.cat((x[:, i], hidden), 1)))
        return F.log_softmax(self.h2o(hidden), dim=1)


class GruByHand(nn.Module):
    """A GRU with fused gates, chunked, and a projection of what goes out."""

    def __init__(self, features: int = 7, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.x2h, self.h2h = nn.Linear(features, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.hidden)
        for step in range(x.shape[1]):
            x_reset, x_update, x_new = self.x2h(x[:, step]).chunk(3, 1)
            h_reset, h_update, h_new = self.h2h(h).chunk(3, 1)
            reset, update = torch.sigmoid(x_reset + h_reset), torch.sigmoid(x_update + h_update)
            h = update * h + (1 - update) * torch.tanh(x_new + reset * h_new)
        return self.out(h)


class ConvLstmCell(nn.Module):
    """The well-known ConvLSTM cell: one convolution of input and state, split by the hidden size."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.conv = nn.Conv2d(input_dim + hidden_dim, 4 * hidden_dim, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        combined = self.conv(torch.cat([x, h], dim=1))
        cc_i, cc_f, cc_o, cc_g = torch.split(combined, self.hidden_dim, dim=1)
        c = torch.sigmoid(cc_f) * c + torch.sigmoid(cc_i) * torch.tanh(cc_g)
        return torch.sigmoid(cc_o) * torch.tanh(c), c

    def init_hidden(self, batch: int, size: torch.Size) -> tuple[Tensor, Tensor]:
        """States of zeros."""
        weight = self.conv.weight
        return (
            torch.zeros(batch, self.hidden_dim, *size, device=weight.device, dtype=weight.dtype),
            torch.zeros(batch, self.hidden_dim, *size, device=weight.device, dtype=weight.dtype),
        )


class ConvLstm(nn.Module):
    """Two layers of cells over a clip; the next picture is predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([ConvLstmCell(2, 6), ConvLstmCell(6, 5)])
        self.predict = nn.Conv2d(5, 2, 1)

    def forward(self, clip: Tensor) -> Tensor:
        b, t, _, *size = clip.size()
        layer = [clip[:, i] for i in range(t)]
        for cell in self.cells:
            state = cell.init_hidden(b, size)
            output = []
            for frame in layer:
                state = cell(frame, state)
                output.append(state[0])
            layer = output
        return self.predict(layer[-1])


class PoolingTagger(nn.Module):
    """A bidirectional GRU whose two directions are added, then pooled by learned attention."""

    def __init__(self, hidden_size: int = 10) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(30, 8)
        self.gru = nn.GRU(8, hidden_size, bidirectional=True, batch_first=True)
        self.w = nn.Parameter(torch.zeros(hidden_size))
        self.fc = nn.Linear(hidden_size, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out, _ = self.gru(self.embedding(ids))
        out = out[:, :, : self.hidden_size] + out[:, :, self.hidden_size :]
        alpha = F.softmax(torch.matmul(torch.tanh(out), self.w), dim=1).unsqueeze(-1)
        return self.fc(torch.tanh(torch.sum(out * alpha, 1)))


CLIP = floats((2, 3, 2, 5, 5))
STEPS = floats((2, 4, 7))
SIGNAL = floats((2, 7, 4))

ENTRIES = (
    Entry("lstm", "recurrent", lambda: LastStep(nn.LSTM(8, 9, batch_first=True), 9), STEPS, (8, 9, 12)),
    Entry(
        "lstm_stacked_bidirectional",
        "recurrent",
        lambda: LastStep(nn.LSTM(8, 9, 2, batch_first=True, bidirectional=True), 18),
        STEPS,
        (8, 9, 12),
    ),
    Entry("lstm_time_first", "recurrent", lambda: TimeFirst(nn.LSTM(8, 9, bias=False), 9), SIGNAL, (8, 9)),
    Entry(
        "lstm_projected",
        "recurrent",
        lambda: TimeFirst(nn.LSTM(8, 14, 2, bidirectional=True, proj_size=5), 10),
        SIGNAL,
        (8, 14, 5),
    ),
    Entry("lstm_text", "recurrent", TextClassifier, tokens(5, 30), (10, 9)),
    Entry("lstm_zero_state", "recurrent", ZeroState, STEPS, (14,)),
    Entry("lstm_captions", "recurrent", Captioner, picture_and_words, (8, 16, 10)),
    Entry("lstm_language_model", "recurrent", WordLanguageModel, tokens(5, 20), (12,)),
    Entry("gru", "recurrent", lambda: StateClassifier(1), STEPS, (16,)),
    Entry("gru_stacked", "recurrent", lambda: StateClassifier(2), STEPS, (16,)),
    Entry(
        "gru_added_directions",
        "recurrent",
        PoolingTagger,
        tokens(5, 30),
        (8, 10),
        count_macs=False,  # PyTorch does not count matrix times vector
    ),
    Entry("gru_sequence_to_sequence", "recurrent", RecurrentSeq2Seq, two_sentences, (6, 8, 10, 9)),
    Entry("rnn_tanh", "recurrent", lambda: LastStep(nn.RNN(8, 16, batch_first=True), 16), STEPS, (8, 16, 12)),
    Entry(
        "rnn_relu",
        "recurrent",
        lambda: TimeFirst(nn.RNN(8, 14, 2, nonlinearity="relu", bidirectional=True), 28),
        SIGNAL,
        (8, 14),
    ),
    Entry("crnn", "recurrent", Crnn, floats((2, 1, 8, 12)), (6, 10, 7, 9, 8)),
    Entry("recurrent_cells", "recurrent cells", Cells, STEPS, (14, 10)),
    Entry("recurrent_by_hand", "recurrent cells", CharRnn, STEPS, (24,)),
    Entry("gru_by_hand", "recurrent cells", GruByHand, STEPS, (16,)),
    Entry("conv_lstm", "recurrent cells", ConvLstm, CLIP, (6, 5), cnn=True),
)
