package keying

const (
	MaxAnswering = maxAnswering
	MaxStrangers = maxStrangers
)
