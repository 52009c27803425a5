package kernel

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// ErrImage is wrapped by the errors of files that are no kernel image for this machine.
var ErrImage = errors.New("not a Linux kernel image for x86-64")

// Offsets in a bzImage (Documentation/arch/x86/boot.rst of Linux, "The Real-Mode Kernel Header").
const (
	offSetupSects     = 0x1f1
	offMagic          = 0x202 // after "HdrS"
	offVersion        = 0x206
	offKernelVersion  = 0x20e
	offPayload        = 0x248
	offPayloadLength  = 0x24c
	sector            = 512
	realModeHeaderEnd = 0x250
	payloadProtocol   = 0x208 // the protocol that added the payload's place
)

// maxImage bounds what is unpacked: a kernel with debug information has some hundred MB.
const maxImage = 1 << 30

// Vmlinux returns the ELF file inside of a bzImage, or image itself if it is one. Booting that spares the guest the
// unpacking, which takes a processor that is emulated longer than everything else. The error wraps ErrImage, and
// errors.ErrUnsupported where the image is whole but compressed in a way that is not known here: it boots as it is.
func Vmlinux(image []byte) ([]byte, error) {
	if isELF(image) {
		return image, nil
	}
	payload, err := payload(image)
	if err != nil {
		return nil, err
	}
	// The build appends the unpacked size to whatever the compressor made; what gzip ends with is the same.
	size := int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if size > maxImage {
		return nil, fmt.Errorf("%w: it unpacks to %d bytes", ErrImage, size)
	}
	unpacked, err := unpack(payload)
	if err != nil {
		return nil, err
	}
	defer unpacked.Close()
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(unpacked, size))
	if err != nil {
		return nil, fmt.Errorf("%w: unpack it: %w", ErrImage, err)
	}
	if n != size || !isELF(out.Bytes()) {
		return nil, fmt.Errorf("%w: %d of %d bytes unpacked", ErrImage, n, size)
	}
	return out.Bytes(), nil
}

// IsVmlinux tells whether a file is the ELF file that Vmlinux makes, without reading all of it.
func IsVmlinux(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 128)
	if _, err := io.ReadFull(f, head); err != nil {
		return false, fmt.Errorf("%s: %w: %w", path, ErrImage, err)
	}
	return isELF(head), nil
}

// isELF tells whether b begins like a 64-bit x86 program.
func isELF(b []byte) bool {
	const machine = 18 // e_machine
	return len(b) > 64 && bytes.HasPrefix(b, []byte("\x7fELF\x02\x01")) && binary.LittleEndian.Uint16(b[machine:]) == 62
}

// whole checks that a vmlinux holds all that its program headers speak of (elf(5)). Of another image it says nothing.
func whole(image []byte) error {
	if !isELF(image) {
		return nil
	}
	const size = 56 // of an Elf64_Phdr
	at, n := binary.LittleEndian.Uint64(image[32:]), uint64(binary.LittleEndian.Uint16(image[56:]))
	end := at + n*size
	for ; n > 0 && at < uint64(len(image)) && end <= uint64(len(image)); n-- {
		segment := image[at:][:size]
		end = max(end, binary.LittleEndian.Uint64(segment[8:])+binary.LittleEndian.Uint64(segment[32:]))
		at += size
	}
	if end > uint64(len(image)) {
		return fmt.Errorf("%w: it is cut short at %d of %d bytes", ErrImage, len(image), end)
	}
	return nil
}

// header checks that image is a bzImage.
func header(image []byte) error {
	if len(image) < realModeHeaderEnd || !bytes.Equal(image[offMagic:offMagic+4], []byte("HdrS")) {
		return fmt.Errorf("%w: neither a bzImage nor ELF", ErrImage)
	}
	return nil
}

// payload returns the compressed part of a bzImage.
func payload(image []byte) ([]byte, error) {
	if err := header(image); err != nil {
		return nil, err
	}
	if v := binary.LittleEndian.Uint16(image[offVersion:]); v < payloadProtocol {
		return nil, fmt.Errorf("%w: boot protocol %d.%d, want 2.8 or newer", ErrImage, v>>8, v&0xff)
	}
	sectors := int64(image[offSetupSects])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*sector + int64(binary.LittleEndian.Uint32(image[offPayload:]))
	end := start + int64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if end > int64(len(image)) || end-start < 8 {
		return nil, fmt.Errorf("%w: it is cut short at %d of %d bytes", ErrImage, len(image), end)
	}
	return image[start:end], nil
}

// unpack reads what is compressed by one of the kernel build's ways.
func unpack(b []byte) (io.ReadCloser, error) {
	r := bytes.NewReader(b)
	var (
		out io.Reader
		err error
	)
	switch {
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		z, zerr := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxImage))
		if zerr != nil {
			return nil, fmt.Errorf("%w: %w", ErrImage, zerr)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		out, err = xz.NewReader(r, 0)
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		z, zerr := gzip.NewReader(r)
		if zerr == nil {
			z.Multistream(false) // what is behind it is the size
		}
		out, err = z, zerr
	case bytes.HasPrefix(b, []byte("BZh")):
		out = bzip2.NewReader(r)
	default:
		return nil, fmt.Errorf("%w: compressed neither by zstd, xz, gzip nor bzip2, beginning %x: %w", ErrImage, b[:4], errors.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	return io.NopCloser(out), nil
}

// Release returns what uname -r says under this kernel: "6.12.117+deb12-amd64".
func Release(image []byte) (string, error) {
	var text []byte
	if isELF(image) {
		_, after, found := bytes.Cut(image, []byte("Linux version "))
		if !found {
			return "", fmt.Errorf("%w: it does not name its version", ErrImage)
		}
		text = after
	} else {
		if err := header(image); err != nil {
			return "", err
		}
		at := int(binary.LittleEndian.Uint16(image[offKernelVersion:])) + sector
		if at == sector || at >= len(image) {
			return "", fmt.Errorf("%w: it does not name its version", ErrImage)
		}
		text = image[at:]
	}
	text = text[:min(len(text), 256)]
	end := bytes.IndexAny(text, " \x00\n")
	if end <= 0 || bytes.ContainsAny(text[:end], "/%") {
		return "", fmt.Errorf("%w: it does not name its version", ErrImage)
	}
	return string(text[:end]), nil
}
