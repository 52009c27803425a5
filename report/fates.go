package report

// Fates are what befell the packets of one direction of a link, as a trace has them that was written or replayed.
type Fates struct {
	Link string `json:"link"`
	From string `json:"from"`
	To   string `json:"to"`

	File     string `json:"file,omitempty"`     // the trace that was written, of both directions
	Recorded uint64 `json:"recorded,omitempty"` // packets of which it tells

	Replayed *Replayed `json:"replayed,omitempty"`
}

// Replayed is how packets met the fates of a trace.
type Replayed struct {
	Traced    uint64 `json:"traced"`    // packets of which the trace tells
	Met       uint64 `json:"met"`       // packets that came
	Beyond    uint64 `json:"beyond"`    // of those, the ones after the last of the trace, which began anew
	Differing uint64 `json:"differing"` // of those, the ones of another size than in the trace
}
