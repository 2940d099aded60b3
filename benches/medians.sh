# For the scripts that measure builds.

# Medians of the columns of standard input, as cells of a table. $1 is the format of each.
medians() {
    awk -v formats="$1" '
        { for (i = 1; i <= NF; i++) values[i, NR] = $i }
        END {
            split(formats, format)
            for (i = 1; i <= NF; i++) {
                for (j = 1; j <= NR; j++)
                    for (k = NR; k > j; k--)
                        if (values[i, k] < values[i, k - 1]) {
                            swap = values[i, k]; values[i, k] = values[i, k - 1]; values[i, k - 1] = swap
                        }
                middle = (values[i, int((NR + 1) / 2)] + values[i, int(NR / 2) + 1]) / 2
                printf " " format[i] " |", middle
            }
            print ""
        }'
}
