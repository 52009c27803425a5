package report

// Lateness is by how much one direction of a wire gave packets out later than its model wanted, with how long they may have
// waited to be read before, since the link was made. Times are in milliseconds.
type Lateness struct {
	Link string `json:"link"`
	From string `json:"from"`
	To   string `json:"to"`

	Packets int64   `json:"packets"` // that the link held back; the figures are of these
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	Missed  uint64  `json:"missed"` // lost before the link, because the wire did not read them in time

	Late bool `json:"late"` // more than a machine should be that has a processor left for the wire
}
