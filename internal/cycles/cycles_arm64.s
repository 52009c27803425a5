#include "textflag.h"

// ISB keeps the counter from being read before what came before it has ended (Arm ARM, D12.1 "The Generic Timer": reads
// of the counter may be speculative).

// func now() uint64
TEXT ·now(SB), NOSPLIT, $0-8
	ISB	$15
	MRS	CNTVCT_EL0, R0
	ISB	$15
	MOVD	R0, ret+0(FP)
	RET

// func adds(n uint64) (sum uint64)
TEXT ·adds(SB), NOSPLIT, $0-16
	MOVD	n+0(FP), R1
	MOVD	$1, R2
	MOVD	ZR, R0
	CBZ	R1, done

round:
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	ADD	R2, R0, R0
	SUB	$1, R1, R1
	CBNZ	R1, round

done:
	MOVD	R0, sum+8(FP)
	RET
