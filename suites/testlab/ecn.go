package testlab

// ECN codepoints (RFC 3168 section 5).
const (
	NotECT = iota
	ECT1
	ECT0
	CE
)

// Refused stands for a packet that is dropped.
const Refused = 0xff

// Decapsulated is the ECN field of a packet that leaves a tunnel, by the inner field and then the outer one: figure 4 of RFC
// 6040, or where the kernel decapsulates RFC 3168 section 9.1.1: congestion is copied inwards where there is ECN, and nothing
// else is.
func Decapsulated(kernel bool) [4][4]byte {
	if kernel {
		return [4][4]byte{
			NotECT: {NotECT, NotECT, NotECT, NotECT},
			ECT0:   {NotECT: ECT0, ECT0: ECT0, ECT1: ECT0, CE: CE},
			ECT1:   {NotECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
			CE:     {CE, CE, CE, CE},
		}
	}
	return [4][4]byte{
		NotECT: {NotECT: NotECT, ECT0: NotECT, ECT1: NotECT, CE: Refused},
		ECT0:   {NotECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
		ECT1:   {NotECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
		CE:     {NotECT: CE, ECT0: CE, ECT1: CE, CE: CE},
	}
}

// Encapsulated is the TOS field or traffic class around a packet: its own, or where the kernel encapsulates that of RFC 3168
// section 9.1.1 (full functionality), which hides that there was congestion before.
func Encapsulated(kernel bool, tos uint8) uint8 {
	if kernel && tos&3 == CE {
		return tos&^3 | ECT0
	}
	return tos
}
