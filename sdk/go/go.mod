module mentat.internal/sdk

go 1.24
