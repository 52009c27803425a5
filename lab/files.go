package lab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrFile says that a file which the topology names is of no use.
var ErrFile = errors.New("unusable file")

// maxFile is the largest certificate file that is read, in bytes.
const maxFile = 1 << 20

// checkCertificate reads what an agent will read: a certificate and its private key in one PEM file.
func checkCertificate(name string) error {
	pem, err := readFile(name)
	if err != nil {
		return err
	}
	defer clear(pem)
	if _, err := tls.X509KeyPair(pem, pem); err != nil {
		return fmt.Errorf("%s: %w; it has to hold a certificate and its unencrypted private key, as PEM", name, err)
	}
	return nil
}

func checkCA(name string) error {
	pem, err := readFile(name)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it, as PEM", name)
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: is larger than %d bytes", name, maxFile)
	}
	return b, err
}
