package keying

const MaxAnswering = maxAnswering
