#include "textflag.h"

// LFENCE waits until what came before it has ended (Intel SDM, volume 2, RDTSC; on AMD it serialises because Linux sets
// DE_CFG bit 1), so no RDTSCP is needed, which not every emulated processor has.

// func now() uint64
TEXT ·now(SB), NOSPLIT, $0-8
	LFENCE
	RDTSC
	LFENCE
	SHLQ	$32, DX
	ORQ	DX, AX
	MOVQ	AX, ret+0(FP)
	RET

// func adds(n uint64) (sum uint64)
TEXT ·adds(SB), NOSPLIT, $0-16
	MOVQ	n+0(FP), CX
	MOVQ	$1, BX
	XORQ	AX, AX
	TESTQ	CX, CX
	JZ	done

round:
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	ADDQ	BX, AX
	DECQ	CX
	JNZ	round

done:
	MOVQ	AX, sum+8(FP)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL	leaf+0(FP), AX
	MOVL	sub+4(FP), CX
	CPUID
	MOVL	AX, a+8(FP)
	MOVL	BX, b+12(FP)
	MOVL	CX, c+16(FP)
	MOVL	DX, d+20(FP)
	RET
