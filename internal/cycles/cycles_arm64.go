package cycles

// Name of the counter.
const Name = "CNTVCT_EL0"

func now() uint64
func adds(n uint64) (sum uint64)

// Ask knows that the counter keeps its rate (Arm ARM, "The Generic Timer"); the rest only the kernel may ask.
func Ask() Machine { return Machine{Invariant: true} }
