// Inspects images, as examples/c/inspect.c does.
//
//     inspect [--threshold X] [--device D] [--precision P] [--map FILE.pgm] BUNDLE IMAGE...
//
// With .NET: dotnet run -- BUNDLE IMAGE...; with Mono: mcs -out:inspect.exe *.cs && mono inspect.exe BUNDLE IMAGE...
// Both find libndp_rt.so through LD_LIBRARY_PATH, the folder of $(ndp-rt capi --library).
using System;
using System.Globalization;
using System.IO;
using System.Text;
using NdpRt;

internal static class Inspect
{
    private const int Good = 0, Error = 1, Usage = 2, Defective = 3;

    private static int Main(string[] arguments)
    {
        var options = new InspectorOptions { BatchSizes = new[] { 1 } }; // images come one by one
        string mapPath = null;
        int i = 0;
        for (; i + 1 < arguments.Length && arguments[i].StartsWith("--", StringComparison.Ordinal); i += 2)
        {
            if (arguments[i] == "--device")
                options.Device = arguments[i + 1];
            else if (arguments[i] == "--precision")
                options.Precision = arguments[i + 1];
            else if (arguments[i] == "--map")
                mapPath = arguments[i + 1];
            else if (arguments[i] == "--threshold" && double.TryParse(
                         arguments[i + 1], NumberStyles.Float, CultureInfo.InvariantCulture, out double threshold))
                options.Threshold = threshold;
            else
                return TellUsage();
        }
        if (arguments.Length - i < 2 || (mapPath != null && arguments.Length - i != 2))
            return TellUsage();
        try
        {
            int outcome = Good;
            using (var inspector = new Inspector(arguments[i], options))
            {
                inspector.WarmUp();
                for (i++; i < arguments.Length; i++)
                    if (InspectFile(inspector, arguments[i], mapPath))
                        outcome = Defective;
            }
            return outcome;
        }
        catch (Exception error) when (error is NdpRtException || error is IOException || error is InvalidDataException
                                      || error is UnauthorizedAccessException)
        {
            Console.Error.WriteLine("inspect: " + error.Message);
            return Error;
        }
        catch (DllNotFoundException)
        {
            Console.Error.WriteLine("inspect: libndp_rt.so is not found; put its folder into LD_LIBRARY_PATH");
            return Error;
        }
    }

    private static int TellUsage()
    {
        Console.Error.WriteLine("usage: inspect [--threshold X] [--device D] [--precision P] [--map FILE.pgm] BUNDLE "
                                + "IMAGE...; --map takes one image");
        return Usage;
    }

    private static bool InspectFile(Inspector inspector, string path, string mapPath)
    {
        Result result = inspector.Inspect(ReadPnm(path));

        Console.WriteLine(FormattableString.Invariant(
            $"{path}: score {result.Score:F6}, threshold {result.Threshold:F6}: {(result.IsDefect ? "defect" : "good")}"));
        foreach (Defect one in result.Defects)
            Console.WriteLine(FormattableString.Invariant(
                $"  x {one.XPx}, y {one.YPx}, {one.WidthPx} x {one.HeightPx}, {one.AreaPx} pixels, peak {one.Peak:F6}"));
        if (mapPath != null)
            WriteMap(mapPath, result);
        return result.IsDefect;
    }

    // Read a PGM or PPM file, P5 or P6, of 8 or 16 bits.
    private static Image ReadPnm(string path)
    {
        byte[] file = File.ReadAllBytes(path);
        int place = 2;
        if (file.Length < 2 || file[0] != 'P' || (file[1] != '5' && file[1] != '6'))
            throw new InvalidDataException(path + ": not a PGM or PPM file that starts with P5 or P6");
        long width = ReadNumber(file, ref place), height = ReadNumber(file, ref place), largest = ReadNumber(file, ref place);
        if (width < 1 || height < 1 || largest < 1 || largest > 65535 || width * height > int.MaxValue)
            throw new InvalidDataException(path + ": no header with a width, a height and a largest value");
        bool isColour = file[1] == '6';
        long count = width * height * (isColour ? 3 : 1);
        if (file.Length - place < count * (largest > 255 ? 2 : 1))
            throw new InvalidDataException(path + ": the file ends before its last pixel");
        if (largest <= 255)
        {
            var pixels = new byte[count];
            Array.Copy(file, place, pixels, 0, count);
            return new Image(pixels, (int)width, (int)height, isColour ? Pixel.Rgb8 : Pixel.Grey8);
        }
        var wide = new ushort[count]; // the file has the larger byte first
        for (long k = 0; k < count; k++)
            wide[k] = (ushort)(file[place + 2 * k] << 8 | file[place + 2 * k + 1]);
        return new Image(wide, (int)width, (int)height, isColour ? Pixel.Rgb16 : Pixel.Grey16);
    }

    // The header's next number, and skip the one character behind it; -1: there is none.
    private static long ReadNumber(byte[] file, ref int place)
    {
        long value = -1;
        while (place < file.Length && (file[place] == '#' || file[place] <= ' '))
            place = file[place] == '#' ? Math.Max(place, Array.IndexOf(file, (byte)'\n', place)) + 1 : place + 1;
        for (; place < file.Length && file[place] >= '0' && file[place] <= '9' && value <= int.MaxValue; place++)
            value = Math.Max(value, 0) * 10 + (file[place] - '0');
        place++;
        return value <= int.MaxValue ? value : -1;
    }

    private static void WriteMap(string path, Result result)
    {
        byte[] header = Encoding.ASCII.GetBytes($"P5\n{result.WidthPx} {result.HeightPx}\n255\n");
        using (FileStream file = File.Create(path))
        {
            file.Write(header, 0, header.Length);
            foreach (float value in result.Map)
                file.WriteByte((byte)(value * 255 + 0.5f));
        }
    }
}
